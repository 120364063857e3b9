/** The number that tells which evaluation is the best. */
export interface BestMetric {
  /** One of the names that the evaluation gives, such as `piqa/acc_norm`. */
  metric: string;
  higherIsBetter: boolean;
}

/** When a training that no longer gets better ends (Prechelt 1998, "Early stopping – but when?"). */
export interface EarlyStopping {
  /** Evaluations in a row that are not better. */
  patience: number;
  /** Better is what is better by more than this than the last that was. Default 0. */
  minDelta?: number;
}

/** Where a run folder keeps an {@link EvaluationLine} per evaluation during its training. */
export const evaluationsFile = 'evaluations.jsonl';

/** A line of {@link evaluationsFile}. */
export interface EvaluationLine {
  /** Steps done; 0 is before the first. */
  step: number;
  tokens: number;
  /** What was asked, as the caller marks it: numbers of lines with another mark are not compared. */
  asked?: string;
  /** What the evaluation gave; null where there is no finite number. */
  values: Record<string, number | null>;
  /** The metric of the best, where one is looked for. */
  metric?: string;
  higherIsBetter?: boolean;
  /** True: the best so far, whose checkpoint is kept. */
  best?: boolean;
  /** Why the training ended here. */
  stop?: string;
}

/** Follows evaluations: which is the best, and whether it is time to stop. What it says depends on the numbers alone. */
export class BestSoFar {
  /** The best so far; of equals the first. */
  best: { step: number; value: number } | undefined;
  /** What is to be surpassed before patience ends. */
  private reference: { step: number; value: number } | undefined;
  private waited = 0;

  constructor(
    private readonly metric: BestMetric,
    private readonly earlyStopping?: EarlyStopping,
  ) {}

  /** Takes the next evaluation; `value` undefined or not finite: it gave none, which is not better than anything. */
  add(step: number, value: number | null | undefined): { best: boolean; stop?: string } {
    const { metric, higherIsBetter } = this.metric;
    const gain = (over: number): number => (higherIsBetter ? value! - over : over - value!);
    const counts = typeof value === 'number' && Number.isFinite(value);
    const best = counts && (this.best === undefined || gain(this.best.value) > 0);
    if (best) this.best = { step, value };
    if (!this.earlyStopping) return { best };
    const { patience, minDelta = 0 } = this.earlyStopping;
    if (counts && (this.reference === undefined || gain(this.reference.value) > minDelta)) {
      this.reference = { step, value };
      this.waited = 0;
      return { best };
    }
    this.waited += 1;
    if (this.waited < patience) return { best };
    const than =
      this.reference === undefined
        ? 'has given no number'
        : `has not become better than ${Number(this.reference.value.toPrecision(6))} of step ${this.reference.step}${minDelta > 0 ? ` by more than ${minDelta}` : ''}`;
    return {
      best,
      stop: `${metric} ${than} in ${this.waited} evaluation${this.waited === 1 ? '' : 's'}, up to step ${step}`,
    };
  }
}
