import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Lines of JSON that other processes append to files of one folder, each taken in once. */
export class SiblingFiles {
  /** Bytes of the others' files that have been read. */
  private readonly seen = new Map<string, number>();

  /**
   * @param pattern names of the files
   * @param own the one that this process writes
   */
  constructor(
    private readonly folder: string,
    private readonly pattern: RegExp,
    private readonly own: string,
  ) {}

  /** What was written since the last call. */
  *read(): Generator<Record<string, unknown>> {
    const { folder } = this;
    for (const name of readdirSync(folder).sort()) {
      if (!this.pattern.test(name) || name === this.own) continue;
      const bytes = readFileSync(join(folder, name));
      const from = this.seen.get(name) ?? 0;
      // The last line may be in the making.
      const end = bytes.lastIndexOf(10) + 1;
      if (end <= from) continue;
      this.seen.set(name, end);
      for (let at = from; at < end; ) {
        const next = bytes.indexOf(10, at);
        const entry = parsed(bytes.toString('utf8', at, next));
        if (entry !== undefined) yield entry;
        at = next + 1;
      }
    }
  }
}

/** Undefined for a line that a killed process left half written: what it was about is asked for again. */
function parsed(line: string): Record<string, unknown> | undefined {
  try {
    const entry: unknown = JSON.parse(line);
    return typeof entry === 'object' && entry !== null ? (entry as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
