import { fail } from '../native/index.ts';
import type { Answer, AnswerJournal, EvalRequest, Share } from './journal.ts';
import type { EvalModel, GenerationRequest, TokenRequest } from './model.ts';

/** A request under the key of its answer. */
export interface KeyedRequest {
  key: string;
  request: EvalRequest;
}

/** Requests that one process takes from the common work at a time, at least. */
const smallestPiece = 16;

/**
 * The order in which a process does the common work: a list of pieces, its own first, then those of the others from the last to the
 * first. A process that is done thus helps the others, or does what one that was killed has left; nobody waits for anybody.
 * @param documents requests, those of one document together
 */
export function piecesFor(
  documents: readonly (readonly KeyedRequest[])[],
  { rank, world }: Share,
): KeyedRequest[][] {
  if (world === 1) return [documents.flat()];
  const total = documents.reduce((sum, { length }) => sum + length, 0);
  const size = Math.max(smallestPiece, Math.ceil(total / (world * 8)));
  const pieces: KeyedRequest[][] = [];
  let piece: KeyedRequest[] = [];
  for (const document of documents) {
    piece.push(...document);
    if (piece.length < size) continue;
    pieces.push(piece);
    piece = [];
  }
  if (piece.length > 0) pieces.push(piece);
  return [
    ...pieces.filter((_, i) => i % world === rank),
    ...pieces.filter((_, i) => i % world !== rank).reverse(),
  ];
}

/** Has the model answer what is open, keeps every answer at once, and yields how many of all are done. */
export async function* askAll(
  model: EvalModel,
  pieces: readonly (readonly KeyedRequest[])[],
  journal: AnswerJournal,
  outer: AbortSignal | undefined,
): AsyncGenerator<number> {
  const left = new AbortController();
  const signal = outer === undefined ? left.signal : AbortSignal.any([left.signal, outer]);
  const wanted = new Set(pieces.flat().map(({ key }) => key));
  let done = 0;
  let wake = (): void => {};
  const count = (): void => {
    done = [...wanted].filter((key) => journal.get(key) !== undefined).length;
  };
  const work = async (): Promise<void> => {
    for (const piece of pieces) {
      if (pieces.length > 1) {
        journal.readOthers();
        count();
        wake();
      }
      const open = new Map(
        piece.filter(({ key }) => journal.get(key) === undefined).map(({ key, request }) => [key, request]),
      );
      await askPiece(model, open, signal, (key, answer) => {
        journal.put(key, answer);
        done++;
        wake();
      });
    }
  };
  count();
  const before = done;
  let ended = false;
  const working = work().finally(() => {
    ended = true;
    wake();
  });
  working.catch(() => {}); // reported below by the await; until then it must not count as unhandled
  try {
    let told = before;
    while (!ended) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (ended || done > told) resolve();
      });
      if (done > told) {
        told = done;
        yield done;
      }
    }
    await working;
    if (done > told) yield done;
  } finally {
    left.abort(new Error('evaluation was left'));
    await working.catch(() => {});
    journal.sync();
  }
}

async function askPiece(
  model: EvalModel,
  open: ReadonlyMap<string, EvalRequest>,
  signal: AbortSignal,
  keep: (key: string, answer: Answer) => void,
): Promise<void> {
  for (const kind of ['loglikelihood', 'loglikelihood_rolling', 'generate_until'] as const) {
    const keys = [...open].filter(([, request]) => request.kind === kind).map(([key]) => key);
    if (keys.length === 0) continue;
    const requests = keys.map((key) => open.get(key)!);
    const missing = new Set(keys);
    const emit = (index: number, answer: Answer): void => {
      missing.delete(keys[index]!);
      keep(keys[index]!, answer);
    };
    if (kind === 'loglikelihood') await model.loglikelihood(requests as TokenRequest[], emit, { signal });
    else if (kind === 'loglikelihood_rolling')
      await model.loglikelihoodRolling(requests as TokenRequest[], emit, { signal });
    else await model.generateUntil!(requests as GenerationRequest[], emit, { signal });
    if (missing.size > 0)
      fail(
        'ERR_LIBMOE_STATE',
        `model ${model.name} left ${missing.size} of ${keys.length} requests unanswered`,
      );
  }
}
