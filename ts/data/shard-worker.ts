import { fail } from '../native/index.ts';
import { type DocumentSeparator, type ShardEntry, writeShard } from './shard-files.ts';
import { loadTokenizer, type Tokenizer } from './tokenizer.ts';

/** One shard to be made. Everything in it can be sent to another thread. */
export interface ShardTask {
  folder: string;
  index: number;
  texts: string[];
  sourceHash: string;
  /** Where the tokenizer is read from, once per thread. */
  tokenizer: string;
  tokenizerHash: string;
  separator: DocumentSeparator;
  dtype: 'u16' | 'i32';
}

const loaded = new Map<string, Tokenizer>();

/** Tokenises the texts of a shard and writes its files. Runs in a worker thread or in the caller's. */
export function tokenizeShard(task: ShardTask): ShardEntry {
  let tokenizer = loaded.get(task.tokenizer);
  if (tokenizer?.hash !== task.tokenizerHash) {
    tokenizer = loadTokenizer(task.tokenizer);
    loaded.set(task.tokenizer, tokenizer);
  }
  if (tokenizer.hash !== task.tokenizerHash) {
    fail('ERR_LIBMOE_DATA', `${task.tokenizer} changed while the data were prepared`);
  }
  const documents: Int32Array[] = [];
  let total = 0;
  for (const text of task.texts) {
    const { separator } = task;
    let ids = tokenizer.encode(separator !== null && 'text' in separator ? text + separator.text : text);
    if (separator !== null && 'id' in separator) ids = Int32Array.from([...ids, separator.id]);
    documents.push(ids);
    total += ids.length;
  }
  const tokens = task.dtype === 'u16' ? new Uint16Array(total) : new Int32Array(total);
  const offsets = new Uint32Array(documents.length + 1);
  let at = 0;
  for (const [i, ids] of documents.entries()) {
    tokens.set(ids, at);
    at += ids.length;
    offsets[i + 1] = at;
  }
  return writeShard(task.folder, task.index, { tokens, offsets, sourceHash: task.sourceHash });
}
