import { fail } from '../../../native/index.ts';
import { isJsonObject, parseJson } from '../../../storage/json.ts';
import { RecordScanner } from '../../conversations/record-scanner.ts';
import { unpackedBytes } from '../../packed-file.ts';
import type { PlacedRow } from '../row.ts';

/** One record may be this long: more is a file whose brackets do not match. */
const mostBytes = 1 << 28;

/**
 * Records of a JSON array or of JSON lines, whichever the file holds, `.gz` and `.zst` too. Memory: one record.
 * @throws ERR_LIBMOE_DATA naming the record that is no JSON object or no UTF-8, and for an array that is cut off
 */
export async function* jsonRows(file: string): AsyncGenerator<PlacedRow> {
  const scanner = new RecordScanner();
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });
  let records = 0;
  let kept: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  let keptFrom = 0;
  const read = (start: number, length: number): PlacedRow => {
    records += 1;
    const where = `${file}, record ${records}`;
    let text: string;
    try {
      text = decoder.decode(kept.subarray(start - keptFrom, start - keptFrom + length));
    } catch (cause) {
      return fail('ERR_LIBMOE_DATA', `${where} is not UTF-8`, cause);
    }
    const row = parseJson(text, where, 'ERR_LIBMOE_DATA');
    return isJsonObject(row)
      ? { row, where }
      : fail('ERR_LIBMOE_DATA', `${where} must be a JSON object, got ${text.slice(0, 60)}`);
  };
  for await (const bytes of unpackedBytes(file, () => `record ${records}`)) {
    kept = kept.byteLength === 0 ? Buffer.from(bytes) : Buffer.concat([kept, bytes]);
    const end = keptFrom + kept.byteLength;
    for (const span of scanner.push(bytes)) yield read(span.start, span.length);
    const needed = scanner.pending < 0 ? end : scanner.pending;
    kept = kept.subarray(needed - keptFrom);
    keptFrom = needed;
    if (kept.byteLength > mostBytes)
      fail('ERR_LIBMOE_DATA', `${file}, record ${records + 1} does not end within ${mostBytes} bytes`);
  }
  const { last, torn } = scanner.finish();
  if (torn) fail('ERR_LIBMOE_DATA', `${file} is cut off after record ${records}: its list does not end`);
  if (last) yield read(last.start, last.length);
}
