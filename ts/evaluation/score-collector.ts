import type { Unit } from './batching.ts';
import type { EmitScore, TokenRequest } from './model.ts';

/** What the network says of some target tokens. */
export interface TokenValues {
  values: number[];
  /** The likeliest tokens in their place. */
  firstChoices: number[];
  greedy: boolean;
}

export interface PartScore {
  request: number;
  part: number;
  score: TokenValues;
}

/** Puts the windows of a request together and emits it when the last one is in: one sum in token order, whatever came first. */
export class Collector {
  private readonly parts: TokenValues[][];
  private readonly missing: number[];

  constructor(
    private readonly requests: readonly TokenRequest[],
    units: readonly Unit[],
    private readonly emit: EmitScore,
  ) {
    this.parts = requests.map(() => []);
    this.missing = requests.map(() => 0);
    for (const unit of units)
      for (const request of unit.kind === 'shared' ? unit.requests : [unit.request]) this.missing[request]!++;
  }

  add(request: number, part: number, score: TokenValues): void {
    const parts = this.parts[request]!;
    parts[part] = score;
    if (--this.missing[request]! > 0) return;
    let sum = 0;
    for (const { values } of parts) for (const value of values) sum += value;
    const { last } = this.requests[request]!;
    this.emit(request, {
      sum,
      greedy: parts.every(({ greedy }) => greedy),
      ...(last !== undefined && {
        last: {
          logProbabilities: parts.flatMap(({ values }) => values).slice(-last),
          firstChoices: parts.flatMap(({ firstChoices }) => firstChoices).slice(-last),
        },
      }),
    });
    this.parts[request] = [];
  }
}
