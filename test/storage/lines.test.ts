import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readLines } from '../../ts/storage/index.ts';
import { temporaryFolder } from './temporary.ts';

const file = join(temporaryFolder(), 'lines.txt');

it.each([1, 3, 1000])('lines of a file come one by one, read %i bytes at a time', (piece) => {
  for (const text of ['', 'é😀\n\nzwei\r\n', 'a\nlast', '\n']) {
    writeFileSync(file, text);
    const wanted = text.split('\n');
    if (wanted.at(-1) === '') wanted.pop();
    expect([...readLines(file, piece)]).toEqual(wanted);
  }
  expect(() => [...readLines(join(file, 'none'))]).toThrow(/^ERR_LIBMOE_FILE: cannot read/);
});
