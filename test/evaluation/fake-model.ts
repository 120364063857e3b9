import type {
  EmitScore,
  EmitText,
  EvalModel,
  EvalTokenizer,
  GenerationRequest,
  ScoreOptions,
  TokenRequest,
} from '../../ts/evaluation/index.ts';
import { windowsOf } from '../../ts/evaluation/requests.ts';

/** One token per UTF-8 byte; 256 is BOS, 257 EOS. */
export const byteTokenizer: EvalTokenizer = {
  name: 'bytes',
  encode: (text) => [...Buffer.from(text, 'utf8')],
  decode: (ids) => Buffer.from(ids.filter((id) => id < 256)).toString('utf8'),
  bos: 256,
  eos: 257,
  bosText: '<s>',
  addsBos: true,
};

/** A tokenizer over given pieces, longest first; anything else is one token per character from 1000 on. */
export function pieceTokenizer(pieces: readonly string[], more: Partial<EvalTokenizer> = {}): EvalTokenizer {
  const byLength = [...pieces].sort((a, b) => b.length - a.length);
  return {
    name: 'pieces',
    addsBos: false,
    encode(text) {
      const ids: number[] = [];
      for (let at = 0; at < text.length; ) {
        const piece = byLength.find((candidate) => text.startsWith(candidate, at));
        ids.push(piece === undefined ? 1000 + text.charCodeAt(at) : pieces.indexOf(piece));
        at += piece?.length ?? 1;
      }
      return ids;
    },
    ...more,
  };
}

/** log p(next | previous) of a fixed bigram table that needs no training: a hash of the two, normalised over 258 tokens. */
export function bigram(previous: number, next: number): number {
  let total = 0;
  let wanted = 0;
  for (let token = 0; token < 258; token++) {
    const weight = 1 + (((((previous * 2654435761 + token * 40503 + 12345) >>> 7) % 97) + 97) % 97);
    total += weight;
    if (token === next) wanted = weight;
  }
  return Math.log(wanted / total);
}

export interface FakeOptions {
  maxLength?: number;
  tokenizer?: EvalTokenizer;
  fingerprint?: string;
  /** Throws after this many answers: a run that is killed. */
  failAfter?: number;
  logProbability?: (previous: number, next: number) => number;
  /** What it says to a prompt; default: its last word, twice. */
  say?: (prompt: string, request: GenerationRequest) => string;
}

/** A model that answers by formula and counts what it is asked. */
export class FakeModel implements EvalModel {
  readonly name = 'fake';
  readonly tokenizer: EvalTokenizer;
  readonly maxLength: number;
  asked: TokenRequest[] = [];

  constructor(private readonly options: FakeOptions = {}) {
    this.tokenizer = options.tokenizer ?? byteTokenizer;
    this.maxLength = options.maxLength ?? 64;
  }

  fingerprint(): string {
    return this.options.fingerprint ?? 'fake-1';
  }

  async loglikelihood(
    requests: readonly TokenRequest[],
    emit: EmitScore,
    options: ScoreOptions = {},
  ): Promise<void> {
    const log = this.options.logProbability ?? bigram;
    // Backwards, since nobody may rely on the order.
    for (let i = requests.length - 1; i >= 0; i--) {
      options.signal?.throwIfAborted();
      if (this.options.failAfter !== undefined && this.asked.length >= this.options.failAfter)
        throw new Error('killed');
      this.asked.push(requests[i]!);
      let sum = 0;
      for (const { input, targets } of windowsOf(requests[i]!, this.maxLength))
        for (const [k, target] of targets.entries())
          sum += log(input[input.length - targets.length + k]!, target);
      emit(i, { sum, greedy: false });
      if (i % 4 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  loglikelihoodRolling(
    requests: readonly TokenRequest[],
    emit: EmitScore,
    options?: ScoreOptions,
  ): Promise<void> {
    return this.loglikelihood(requests, emit, options);
  }

  prompts: GenerationRequest[] = [];

  async generateUntil(
    requests: readonly GenerationRequest[],
    emit: EmitText,
    options: ScoreOptions = {},
  ): Promise<void> {
    const say = this.options.say ?? ((prompt: string) => ` ${prompt.split(/\s+/).at(-1)} `.repeat(2));
    for (let i = requests.length - 1; i >= 0; i--) {
      options.signal?.throwIfAborted();
      if (this.options.failAfter !== undefined && this.prompts.length >= this.options.failAfter)
        throw new Error('killed');
      const request = requests[i]!;
      this.prompts.push(request);
      const text = say(this.tokenizer.decode!(request.context), request);
      const { until } = request.generation;
      const cut = until.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
      emit(
        i,
        cut.length > 0
          ? { text: text.slice(0, Math.min(...cut)), tokens: text.length, ended: 'stop' }
          : { text, tokens: text.length, ended: 'eos' },
      );
      if (i % 4 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
