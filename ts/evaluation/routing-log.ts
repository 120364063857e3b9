import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Column, Journal, RecordWriter, readJournal } from '../storage/index.ts';
import type { Share } from './journal.ts';
import type { RoutedRequest } from './routing-tap.ts';
import { SiblingFiles } from './sibling-files.ts';

/** What a request is about. */
export interface RoutedTopic {
  task: string;
  docId: number;
  /** Of the choices or repeats of the document. */
  index: number;
  category?: string;
}

interface Waiting {
  request: number;
  layer: RoutedRequest;
}

const tableName = /^routing(?:\.\d+)?\.requests\.jsonl$/;

/** Rows that wait to be written, at most: a block of many costs little more than one of a few. */
const mostWaiting = 1 << 16;

/**
 * Where the routing of an evaluation goes: `routing.records`, columns of numbers in blocks of one layer each, and `routing.requests.jsonl`, which
 * says whose rows they are. Rows are written before their lines, so a request that has a line has its rows. Rows without a line are of a run
 * that was killed in between; it asks again for what had not been written. Several processes each write files of their own and know the others'
 * lines. See docs/routing-records.md.
 */
export class RoutingLog {
  private readonly records: RecordWriter;
  private readonly table: Journal;
  private readonly known = new Set<string>();
  private readonly others: SiblingFiles;
  private readonly session: number;
  private next = 0;
  private readonly waiting: Waiting[] = [];
  private readonly lines: object[] = [];
  private rows = 0;

  /** @throws ERR_LIBMOE_FILE for files that are damaged */
  constructor(folder: string, { rank, world }: Share) {
    const stem = world === 1 ? 'routing' : `routing.${rank}`;
    const own = `${stem}.requests.jsonl`;
    const lines = join(folder, own);
    const entries = existsSync(lines) ? readJournal(lines) : [];
    let session = 0;
    for (const { key, session: begun } of entries) {
      if (typeof key === 'string') this.known.add(key);
      else if (typeof begun === 'number') session = Math.max(session, begun);
    }
    this.session = session + 1;
    this.records = new RecordWriter(join(folder, `${stem}.records`));
    this.table = new Journal(lines, { syncEvery: 256 });
    // Numbers begin anew: those of rows without a line are not known.
    this.table.append({ session: this.session });
    this.others = new SiblingFiles(folder, tableName, own);
    this.readOthers();
  }

  /** Takes in what other processes have written since. */
  readOthers(): void {
    for (const { key } of this.others.read()) if (typeof key === 'string') this.known.add(key);
  }

  /** Whether the routing of a request is there. */
  has(key: string): boolean {
    return this.known.has(key);
  }

  /** Keeps the routing of a request; it is written with that of others, by {@link flush} at the latest. */
  put(key: string, layers: readonly RoutedRequest[], topics: readonly RoutedTopic[]): void {
    const request = this.next++;
    for (const layer of layers) {
      this.waiting.push({ request, layer });
      this.rows += layer.kinds.length;
    }
    this.lines.push({
      session: this.session,
      request,
      key,
      for: topics.map(({ task, docId, index, category }) => ({
        task,
        doc_id: docId,
        index,
        ...(category !== undefined && { category }),
      })),
    });
    this.known.add(key);
    if (this.rows >= mostWaiting) this.flush();
  }

  /** Writes what waits. */
  flush(): void {
    const blocks = new Map<string, Waiting[]>();
    for (const one of this.waiting) {
      const name = `${one.layer.layer} ${one.layer.call} ${one.layer.topK}`;
      const block = blocks.get(name);
      if (block === undefined) blocks.set(name, [one]);
      else block.push(one);
    }
    this.records.appendAll(
      [...blocks.values()].map((block) => {
        const { layer, call } = block[0]!.layer;
        return [{ session: this.session, layer, ...(call > 0 && { call }) }, columnsOf(block)];
      }),
    );
    // A line says that its rows are there: where they could not be written (a full disk) both wait on.
    this.waiting.length = 0;
    this.rows = 0;
    this.table.appendAll(this.lines);
    this.lines.length = 0;
  }

  close(): void {
    try {
      this.flush();
    } finally {
      this.records.close();
      this.table.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The rows of all requests of a block. */
function columnsOf(block: readonly Waiting[]): Record<string, Column> {
  const layers = block.map(({ layer }) => layer);
  const { topK, tokens, images } = layers[0]!;
  const rows = layers.reduce((sum, { kinds }) => sum + kinds.length, 0);
  const joined = <T extends Uint8Array | Int32Array | Float32Array>(
    into: T,
    of: (layer: RoutedRequest) => T,
  ): T => {
    let at = 0;
    for (const layer of layers) {
      const part = of(layer);
      into.set(part, at);
      at += part.length;
    }
    return into;
  };
  const request = new Int32Array(rows);
  let at = 0;
  for (const one of block) {
    request.fill(one.request, at, at + one.layer.kinds.length);
    at += one.layer.kinds.length;
  }
  const ints = (width = 1): Int32Array => new Int32Array(rows * width);
  return {
    request,
    kind: joined(new Uint8Array(rows), ({ kinds }) => kinds),
    position: joined(ints(), ({ positions }) => positions),
    ...(tokens && { token: joined(ints(), (layer) => layer.tokens!) }),
    ...(images && { image: joined(ints(), (layer) => layer.images!) }),
    experts: { data: joined(ints(topK), ({ experts }) => experts), width: topK },
    weights: { data: joined(new Float32Array(rows * topK), ({ weights }) => weights), width: topK },
  };
}
