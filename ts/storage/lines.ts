import { closeSync, openSync, readSync } from 'node:fs';
import { fail } from '../native/index.ts';
import { reasonOf } from './json.ts';

/**
 * The lines of a UTF-8 text file, one after the other: a file may be longer than a string can be.
 * @param pieceBytes read at a time
 * @throws ERR_LIBMOE_FILE naming the file and the reason
 */
export function* readLines(path: string, pieceBytes: number = 1 << 20): Generator<string> {
  const read = <T>(step: () => T): T => {
    try {
      return step();
    } catch (cause) {
      return fail('ERR_LIBMOE_FILE', `cannot read ${path} (${reasonOf(cause)})`, cause);
    }
  };
  const descriptor = read(() => openSync(path, 'r'));
  try {
    const piece = Buffer.alloc(pieceBytes);
    // What is known of the line in the making.
    let begun: Buffer[] = [];
    for (;;) {
      const count = read(() => readSync(descriptor, piece, 0, piece.length, null));
      if (count === 0) break;
      let at = 0;
      for (let end = piece.indexOf(10); end >= 0 && end < count; end = piece.indexOf(10, at)) {
        yield Buffer.concat([...begun, piece.subarray(at, end)]).toString('utf8');
        begun = [];
        at = end + 1;
      }
      begun.push(Buffer.from(piece.subarray(at, count)));
    }
    const rest = Buffer.concat(begun).toString('utf8');
    if (rest !== '') yield rest;
  } finally {
    closeSync(descriptor);
  }
}
