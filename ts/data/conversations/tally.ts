/**
 * Counts of this rank since the loader was made: samples given; left out, because they cannot be learned from or (option) an image is missing;
 * images missing or broken; samples cut at the context; ignored by LibMoE's label masking; drawn to fill a share that would have been empty.
 */
export type Tally = Record<'samples' | 'skipped' | 'missingImages' | 'cut' | 'ignored' | 'filledIn', number>;

/** Counts, with the first few of each kind in words. */
export class TallySheet {
  readonly counts: Tally = { samples: 0, skipped: 0, missingImages: 0, cut: 0, ignored: 0, filledIn: 0 };
  readonly messages: { kind: keyof Tally; text: string }[] = [];

  count(kind: keyof Tally, text?: string): void {
    this.counts[kind] += 1;
    if (text !== undefined && this.messages.length < 20) this.messages.push({ kind, text });
  }

  /** Adds another's counts; gives those of its messages that are among the first `limit` of their kind. */
  add(other: TallySheet, limit: number): string[] {
    const told: string[] = [];
    for (const { kind, text } of other.messages)
      if (this.messages.filter((each) => each.kind === kind).length < limit) {
        this.messages.push({ kind, text });
        told.push(text);
      }
    for (const kind of Object.keys(this.counts) as (keyof Tally)[]) this.counts[kind] += other.counts[kind];
    return told;
  }
}
