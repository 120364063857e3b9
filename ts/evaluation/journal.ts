import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Journal, readJournal } from '../storage/index.ts';
import type { GeneratedText, GenerationRequest, LastTokens, TokenRequest, TokenScore } from './model.ts';
import { SiblingFiles } from './sibling-files.ts';

/** Raised whenever an answer to the same tokens may change by our doing. */
const keyVersion = 1;
const textVersion = 2;

/** Whatever is asked of a model. */
export type EvalRequest = TokenRequest | GenerationRequest;
/** Whatever it answers. */
export type Answer = TokenScore | GeneratedText;

/**
 * The key of an answer: SHA-256 over everything that determines it. Task and document are not in it, so an edited prompt
 * misses and an unchanged one hits under any name; the model's fingerprint is, so no model gets another's answers.
 * @param endTokens those that end a text
 */
export function requestKey(
  fingerprint: string,
  request: EvalRequest,
  endTokens: ReadonlySet<number> = new Set(),
): string {
  const { kind, context, images = [] } = request;
  const seen = images.length > 0 ? [images.map(({ sha256 }) => sha256)] : [];
  const more = 'last' in request && request.last !== undefined ? [{ last: request.last }] : [];
  const asked =
    kind === 'generate_until'
      ? [textVersion, fingerprint, kind, context, settingsOf(request), [...endTokens].sort((a, b) => a - b)]
      : [keyVersion, fingerprint, kind, context, request.continuation];
  return createHash('sha256')
    .update(JSON.stringify([...asked, ...seen, ...more]))
    .digest('hex');
}

/** What decides about a text beside its prompt; of greedy search neither seed nor number of the sample does. */
function settingsOf({ generation }: GenerationRequest): unknown[] {
  const { until, maxTokens, temperature, topP, topK, seed, repeat } = generation;
  const ends = [[...until].sort(), maxTokens];
  return temperature === 0 ? ends : [...ends, temperature, topP ?? null, topK ?? null, seed, repeat];
}

/** Which of several processes that share a folder this is. */
export interface Share {
  rank: number;
  world: number;
}

const journalName = /^journal(?:\.\d+)?\.jsonl$/;

/**
 * Answers on disk, one JSON line each, appended as they come: a killed run loses none that was written (a power cut at
 * most the last 256), and the same command continues where it stopped. Several processes each write a file of their own and read the
 * others'.
 */
export class AnswerJournal {
  private readonly known = new Map<string, Answer>();
  private readonly file: Journal | undefined;
  private readonly others: SiblingFiles | undefined;

  /** @param folder none keeps the answers in memory only. Throws ERR_LIBMOE_FILE when a file is damaged. */
  constructor(folder?: string, { rank, world }: Share = { rank: 0, world: 1 }) {
    if (folder === undefined) return;
    const own = world === 1 ? 'journal.jsonl' : `journal.${rank}.jsonl`;
    const path = join(folder, own);
    if (existsSync(path)) for (const entry of readJournal(path)) this.learn(entry);
    this.file = new Journal(path, { syncEvery: 256 });
    this.others = new SiblingFiles(folder, journalName, own);
    this.readOthers();
  }

  /** Takes in what other processes have written since. */
  readOthers(): void {
    if (this.others) for (const entry of this.others.read()) this.learn(entry);
  }

  get(key: string): Answer | undefined {
    return this.known.get(key);
  }

  get size(): number {
    return this.known.size;
  }

  /** Keeps an answer. One that is no finite number stays in memory only: a later run asks again. */
  put(key: string, answer: Answer): void {
    this.known.set(key, answer);
    if ('sum' in answer) {
      const { sum, greedy, last } = answer;
      if (Number.isFinite(sum)) this.file?.append({ key, sum, greedy, ...(last && { last }) });
    } else if (answer.ended !== 'not_finite') {
      const { text, tokens, ended } = answer;
      this.file?.append({ key, text, tokens, ended });
    }
  }

  sync(): void {
    this.file?.sync();
  }

  close(): void {
    this.file?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private learn({ key, sum, greedy, last, text, tokens, ended }: Record<string, unknown>): void {
    if (typeof key !== 'string') return;
    if (typeof sum === 'number' && typeof greedy === 'boolean')
      this.known.set(key, { sum, greedy, ...(last !== undefined && { last: last as LastTokens }) });
    else if (typeof text === 'string' && typeof tokens === 'number' && isEnd(ended))
      this.known.set(key, { text, tokens, ended });
  }
}

const isEnd = (value: unknown): value is GeneratedText['ended'] =>
  value === 'stop' || value === 'eos' || value === 'length';
