import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Journal, RecordWriter, readJournal } from '../storage/index.ts';
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

const tableName = /^routing(?:\.\d+)?\.requests\.jsonl$/;

/**
 * Where the routing of an evaluation goes: `routing.records`, columns of numbers in blocks of one layer each, and `routing.requests.jsonl`, which
 * says whose rows they are. Rows are written before their line, and the line before the answer is kept, so an answer in the journal that
 * has a line has its rows. Rows without a line are of a run that was killed in between. Several processes each write files of their own and
 * know the others' lines. See docs/routing-records.md.
 */
export class RoutingLog {
  private readonly records: RecordWriter;
  private readonly table: Journal;
  private readonly known = new Set<string>();
  private readonly others: SiblingFiles;
  private readonly session: number;
  private next = 0;

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

  /** Keeps the routing of a request. */
  put(key: string, layers: readonly RoutedRequest[], topics: readonly RoutedTopic[]): void {
    const request = this.next++;
    for (const { layer, kinds, positions, tokens, experts, weights, topK } of layers)
      this.records.append(
        { session: this.session, layer },
        {
          request: new Int32Array(tokens.length).fill(request),
          kind: Uint8Array.from(kinds),
          position: Int32Array.from(positions),
          token: Int32Array.from(tokens),
          experts: { data: Int32Array.from(experts), width: topK },
          weights: { data: Float32Array.from(weights), width: topK },
        },
      );
    this.table.append({
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
  }

  close(): void {
    this.records.close();
    this.table.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
