import { createWriteStream, mkdirSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { crc32 } from 'node:zlib';
import type { Entry, ZipFile } from 'yauzl';
import { codeOf, fail } from '../../native/index.ts';
import { reasonOf } from '../../storage/json.ts';

/** Deflate packs zeros about 1:1032, and nothing better: what claims more is lying. */
const mostExpansion = 1100;

/**
 * Unpacks an archive into a new folder. Entries must stay below it, and no link is made: only plain files are written.
 * @throws ERR_LIBMOE_DATA for a damaged archive, names that lead out of the folder, sizes that are not those declared, impossible or beyond the free space
 */
export async function unpackZip(file: string, to: string): Promise<void> {
  const { openPromise } = await import('yauzl');
  let zip: ZipFile | undefined;
  try {
    // Checks names (no .., no absolute ones, no backslashes) and, while reading, sizes.
    zip = await openPromise(file, { autoClose: false, strictFileNames: false, validateEntrySizes: true });
    mkdirSync(to, { recursive: true });
    const { bsize, bavail } = statfsSync(to);
    let room = bsize * bavail;
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName.endsWith('/')) continue;
      room -= entry.uncompressedSize;
      refuse(entry, file, room);
      const path = join(to, entry.fileName);
      mkdirSync(dirname(path), { recursive: true });
      let checksum = 0;
      await pipeline(
        await zip.openReadStreamPromise(entry),
        async function* (pieces: AsyncIterable<Buffer>) {
          for await (const piece of pieces) {
            checksum = crc32(piece, checksum);
            yield piece;
          }
        },
        createWriteStream(path, { flags: 'wx' }),
      );
      if (checksum !== entry.crc32)
        fail('ERR_LIBMOE_DATA', `${file}: ${entry.fileName} is damaged: its checksum is another`);
    }
  } catch (cause) {
    if (codeOf(cause) !== undefined) throw cause;
    fail('ERR_LIBMOE_DATA', `${file} is no whole zip archive, or an unsafe one: ${reasonOf(cause)}`, cause);
  } finally {
    zip?.close();
  }
}

function refuse(entry: Entry, file: string, room: number): void {
  if (entry.uncompressedSize > entry.compressedSize * mostExpansion + 4096)
    fail(
      'ERR_LIBMOE_DATA',
      `${file}: ${entry.fileName} says that its ${entry.compressedSize} bytes unpack to ${entry.uncompressedSize}, which cannot be`,
    );
  if (room < 0)
    fail(
      'ERR_LIBMOE_DATA',
      `${file}: there is no room to unpack ${entry.fileName} (${entry.uncompressedSize} bytes): free some space, or unpack the archive elsewhere and import the folder`,
    );
  const kind = (entry.externalFileAttributes >>> 16) & 0o170000;
  if (kind !== 0 && kind !== 0o100000 && kind !== 0o040000)
    fail('ERR_LIBMOE_DATA', `${file}: ${entry.fileName} is a link or a device, expected plain files`);
  if (entry.isEncrypted())
    fail('ERR_LIBMOE_DATA', `${file}: ${entry.fileName} is encrypted: unpack it first`);
}
