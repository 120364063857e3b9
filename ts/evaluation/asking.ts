import { fail } from '../native/index.ts';
import type { Answer, AnswerJournal, EvalRequest, Share } from './journal.ts';
import type { EvalModel, GenerationRequest, TokenRequest } from './model.ts';
import type { RoutedTopic, RoutingLog } from './routing-log.ts';
import type { RoutedRequest } from './routing-tap.ts';

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

/** Where {@link askAll} keeps what the model says. */
export interface Keeping {
  journal: AnswerJournal;
  /** Where experts were chosen; a request whose routing is not there is asked again. */
  routing?: { log: RoutingLog; topics: ReadonlyMap<string, readonly RoutedTopic[]> };
}

/** Whether nothing about a request is open. */
export function isDone(key: string, { journal, routing }: Keeping): boolean {
  return journal.get(key) !== undefined && (routing === undefined || routing.log.has(key));
}

/** Has the model answer what is open, keeps every answer at once, and yields how many of all are done. */
export async function* askAll(
  model: EvalModel,
  pieces: readonly (readonly KeyedRequest[])[],
  keeping: Keeping,
  outer: AbortSignal | undefined,
): AsyncGenerator<number> {
  const { journal, routing } = keeping;
  const left = new AbortController();
  const signal = outer === undefined ? left.signal : AbortSignal.any([left.signal, outer]);
  const wanted = new Set(pieces.flat().map(({ key }) => key));
  let done = 0;
  let wake = (): void => {};
  const count = (): void => {
    done = [...wanted].filter((key) => isDone(key, keeping)).length;
  };
  const work = async (): Promise<void> => {
    for (const piece of pieces) {
      if (pieces.length > 1) {
        journal.readOthers();
        routing?.log.readOthers();
        count();
        wake();
      }
      const open = new Map(
        piece.filter(({ key }) => !isDone(key, keeping)).map(({ key, request }) => [key, request]),
      );
      const routed =
        routing &&
        ((key: string, layers: readonly RoutedRequest[]) =>
          routing.log.put(key, layers, routing.topics.get(key) ?? []));
      await askPiece(model, open, { signal, routed }, (key, answer) => {
        journal.put(key, answer);
        done++;
        wake();
      });
      routing?.log.flush();
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
  {
    signal,
    routed,
  }: {
    signal: AbortSignal;
    routed: ((key: string, layers: readonly RoutedRequest[]) => void) | undefined;
  },
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
    const options = {
      signal,
      ...(routed && {
        routing: (index: number, layers: readonly RoutedRequest[]) => routed(keys[index]!, layers),
      }),
    };
    if (kind === 'loglikelihood') await model.loglikelihood(requests as TokenRequest[], emit, options);
    else if (kind === 'loglikelihood_rolling')
      await model.loglikelihoodRolling(requests as TokenRequest[], emit, options);
    else await model.generateUntil!(requests as GenerationRequest[], emit, options);
    if (missing.size > 0)
      fail(
        'ERR_LIBMOE_STATE',
        `model ${model.name} left ${missing.size} of ${keys.length} requests unanswered`,
      );
  }
}
