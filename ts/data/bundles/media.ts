import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { extname, join } from 'node:path';
import { fail } from '../../native/index.ts';
import { checksumOf } from '../../storage/checksums.ts';

/** Where media lie below a bundle's folder. */
export const mediaFolder = 'media';
/** How a row names a media file. */
export const mediaName = /^media\/([0-9a-f]{64})\.[a-z0-9]+$/;

const formats: readonly (readonly [extension: string, begins: (b: Buffer) => boolean])[] = [
  ['jpg', (b) => b[0] === 0xff && b[1] === 0xd8 && b[2] === 0xff],
  ['png', (b) => b.toString('latin1', 0, 4) === '\x89PNG'],
  ['gif', (b) => b.toString('latin1', 0, 4) === 'GIF8'],
  ['webp', (b) => b.toString('latin1', 0, 4) === 'RIFF' && b.toString('latin1', 8, 12) === 'WEBP'],
  ['bmp', (b) => b.toString('latin1', 0, 2) === 'BM' && b.length > 26],
  ['tif', (b) => ['II*\0', 'MM\0*'].includes(b.toString('latin1', 0, 4))],
  ['wav', (b) => b.toString('latin1', 0, 4) === 'RIFF' && b.toString('latin1', 8, 12) === 'WAVE'],
  ['mp4', (b) => b.toString('latin1', 4, 8) === 'ftyp'],
];

/** The file name ending that goes with the first bytes of an image, a sound or a film; undefined for anything else. */
export function mediaExtension(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 32));
  return formats.find(([, begins]) => begins(head))?.[0];
}

/** Files named by their content: the same picture, however often it is shown, is kept once. */
export class MediaStore {
  /** Bytes of what is kept, by name. */
  private readonly known = new Map<string, number>();

  constructor(private readonly bundle: string) {}

  get count(): number {
    return this.known.size;
  }

  get bytes(): number {
    return [...this.known.values()].reduce((sum, size) => sum + size, 0);
  }

  /** Keeps bytes as they are; gives the name. `hint`: a file name whose ending counts when the bytes do not say what they are. */
  keep(bytes: Uint8Array, hint = ''): string {
    const digest = createHash('sha256').update(bytes).digest('hex');
    const name = nameOf(digest, mediaExtension(bytes), hint);
    if (this.isNew(name, bytes.byteLength)) writeFileSync(join(this.bundle, name), bytes);
    return name;
  }

  /** Keeps a copy of a file. Throws ERR_LIBMOE_DATA if it cannot be read. */
  keepFile(file: string): string {
    try {
      const head = Buffer.alloc(32);
      const descriptor = openSync(file, 'r');
      try {
        readSync(descriptor, head, 0, head.length, 0);
      } finally {
        closeSync(descriptor);
      }
      const { sha256, size } = checksumOf(file);
      const name = nameOf(sha256, mediaExtension(head), file);
      if (this.isNew(name, size)) copyFileSync(file, join(this.bundle, name));
      return name;
    } catch (cause) {
      return fail('ERR_LIBMOE_DATA', `cannot keep the image ${file}: ${(cause as Error).message}`, cause);
    }
  }

  private isNew(name: string, bytes: number): boolean {
    if (this.known.has(name)) return false;
    if (this.known.size === 0) mkdirSync(join(this.bundle, mediaFolder), { recursive: true });
    this.known.set(name, bytes);
    return true;
  }
}

function nameOf(digest: string, known: string | undefined, hint: string): string {
  const given = extname(hint).slice(1).toLowerCase();
  return `${mediaFolder}/${digest}.${known ?? (/^[a-z0-9]{1,5}$/.test(given) ? given : 'bin')}`;
}

/** Whether a path is a file: a folder named like an image is none. */
export const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile();
