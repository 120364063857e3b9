import { appendFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checksumOf, verifyFolder, writeChecksums } from '../../ts/storage/checksums.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();
let count = 0;

function sample(): string {
  const folder = join(root, String(count++));
  mkdirSync(join(folder, 'deep'), { recursive: true });
  writeFileSync(join(folder, 'a.bin'), 'abc');
  writeFileSync(join(folder, 'deep/b.bin'), Buffer.alloc(3_000_000, 1));
  writeChecksums(folder);
  return folder;
}

describe('checksums', () => {
  it('is SHA-256 (FIPS 180-2, appendix B.1)', () => {
    expect(checksumOf(join(sample(), 'a.bin'))).toEqual({
      size: 3,
      sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    });
  });

  it('accepts an untouched folder, and files it does not list', () => {
    const folder = sample();
    writeFileSync(join(folder, 'more'), '');
    verifyFolder(folder);
  });

  it('names the file that is missing, truncated, grown or changed', () => {
    const missing = sample();
    rmSync(join(missing, 'a.bin'));
    expect(() => verifyFolder(missing)).toThrow(/ERR_LIBMOE_CHECKPOINT: .*a\.bin is missing/);
    const cut = sample();
    truncateSync(join(cut, 'deep/b.bin'), 2_999_999);
    expect(() => verifyFolder(cut, { depth: 'size' })).toThrow(
      /deep\/b\.bin is truncated: 2999999 bytes, expected 3000000/,
    );
    const grown = sample();
    appendFileSync(join(grown, 'a.bin'), 'd');
    expect(() => verifyFolder(grown)).toThrow(/a\.bin has grown/);
    const changed = sample();
    writeFileSync(join(changed, 'a.bin'), 'abd');
    verifyFolder(changed, { depth: 'size' });
    expect(() => verifyFolder(changed)).toThrow(/a\.bin is damaged/);
  });

  it('refuses a folder without a usable list', () => {
    const none = sample();
    rmSync(join(none, 'checksums.json'));
    expect(() => verifyFolder(none)).toThrow('has no checksums.json: it is incomplete');
    const torn = sample();
    truncateSync(join(torn, 'checksums.json'), 30);
    expect(() => verifyFolder(torn)).toThrow(/ERR_LIBMOE_CHECKPOINT.*checksums\.json/);
    const odd = sample();
    writeFileSync(join(odd, 'checksums.json'), '{"files": {"a.bin": {}}}');
    expect(() => verifyFolder(odd)).toThrow('the entry of a.bin has no size and sha256');
  });
});
