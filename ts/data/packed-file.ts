import { createReadStream } from 'node:fs';
import { Readable, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { codeOf, fail } from '../native/index.ts';
import { reasonOf } from '../storage/json.ts';

/**
 * The bytes of a file in pieces, unpacked where its name ends in .gz or .zst.
 * @throws ERR_LIBMOE_FILE where it cannot be read, ERR_LIBMOE_DATA (saying `after` what) where it is damaged
 */
export async function* unpackedBytes(file: string, after: () => string): AsyncGenerator<Uint8Array> {
  const source = createReadStream(file, { highWaterMark: 1 << 18 });
  const plain = file.endsWith('.gz')
    ? source.pipe(zlib.createGunzip())
    : file.endsWith('.zst')
      ? unpackZstd(source)
      : source;
  // An error of the file has to reach whoever reads the unpacked bytes.
  if (plain !== source) source.once('error', (error) => plain.destroy(error));
  try {
    for await (const chunk of plain) yield chunk as Uint8Array;
  } catch (error) {
    if (codeOf(error) !== undefined) throw error;
    const missing = ['ENOENT', 'EACCES', 'EISDIR'].includes(String((error as { code?: unknown }).code));
    if (missing) fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error);
    fail('ERR_LIBMOE_DATA', `${file} is damaged after ${after()}: ${reasonOf(error)}`, error);
  } finally {
    source.destroy();
    plain.destroy();
  }
}

interface NodeZstd {
  createZstdDecompress?: (options: { params: Record<number, number> }) => Transform;
  zstdDecompressSync: (data: Uint8Array) => Uint8Array;
  constants: Record<string, number>;
}

/** Two frames of one byte each ("a", "b" stored raw), to see whether a decoder goes on after the first. */
const twoFrames = Buffer.from('28b52ffd200109000061'.concat('28b52ffd200109000062'), 'hex');
let nodeZstd: NodeZstd | null | undefined;

/**
 * Node's own zstd, where there is one that reads all frames of a file: Node 22 stops after the first without a word, and parallel
 * compressors write many.
 */
function wholeNodeZstd(): NodeZstd | null {
  if (nodeZstd === undefined) {
    const candidate = zlib as unknown as NodeZstd;
    const whole = candidate.createZstdDecompress && candidate.zstdDecompressSync(twoFrames).length === 2;
    nodeZstd = whole ? candidate : null;
  }
  return nodeZstd;
}

/** Node's zstd, else a decoder in JavaScript at about a quarter of its speed. */
function unpackZstd(source: Readable): Readable {
  const node = wholeNodeZstd();
  if (!node) return Readable.from(unpackInScript(source));
  // SlimPajama's files look back over 2 GiB.
  return source.pipe(node.createZstdDecompress!({ params: { [node.constants.ZSTD_d_windowLogMax!]: 31 } }));
}

async function* unpackInScript(source: Readable): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import('fzstd');
  let ready: Uint8Array[] = [];
  const decoder = new Decompress((data) => ready.push(data));
  for await (const chunk of source) {
    decoder.push(chunk as Uint8Array);
    yield* ready;
    ready = [];
  }
  decoder.push(new Uint8Array(0), true);
  yield* ready;
}
