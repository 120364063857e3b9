const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const newline = 0x0a;

/** A stretch of a file that holds one record. */
export interface RecordSpan {
  /** First byte and number of bytes. */
  start: number;
  length: number;
}

/**
 * Finds the records of a JSON array, or of JSON lines, in a file that comes in pieces of any size; keeps none of its text. Whether what it
 * finds is JSON is left to whoever reads it: a bad record between two good ones does no harm as long as its quotes and brackets match.
 */
export class RecordScanner {
  /** Known from the first byte that is not blank. */
  kind?: 'array' | 'lines';
  private at = 0;
  /** Where the present record begins, −1 between two. */
  private start = -1;
  /** One past its last byte that is not blank. */
  private end = 0;
  private depth = 0;
  private inString = false;
  private escaped = false;
  private closed = false;

  /** The records that end in `bytes`, which follow those given before. */
  *push(bytes: Uint8Array): Generator<RecordSpan> {
    let i = this.at === 0 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
    if (this.kind === undefined) {
      while (i < bytes.length && isBlank(bytes[i]!)) i += 1;
      if (i < bytes.length) {
        this.kind = bytes[i] === 0x5b ? 'array' : 'lines';
        if (this.kind === 'array') i += 1;
      }
    }
    if (this.kind === 'array') yield* this.array(bytes, i);
    else if (this.kind === 'lines') yield* this.lines(bytes, i);
    this.at += bytes.length;
  }

  /** Where the record that is under way begins, −1 between two. */
  get pending(): number {
    return this.start;
  }

  /** What the file ends in the middle of: the last of JSON lines, or the torn last record of an array. */
  finish(): { last?: RecordSpan; torn: boolean } {
    const last = this.start < 0 ? undefined : { start: this.start, length: this.end - this.start };
    return { ...(last && { last }), torn: this.kind === 'array' && !this.closed };
  }

  private *lines(bytes: Uint8Array, from: number): Generator<RecordSpan> {
    for (let i = from; i < bytes.length; ) {
      const found = bytes.indexOf(newline, i);
      const stop = found < 0 ? bytes.length : found;
      for (let k = i; this.start < 0 && k < stop; ++k) if (!isBlank(bytes[k]!)) this.start = this.at + k;
      this.end = this.at + stop;
      if (found >= 0 && this.start >= 0) yield this.take();
      i = stop + 1;
    }
  }

  private *array(bytes: Uint8Array, from: number): Generator<RecordSpan> {
    for (let i = from; i < bytes.length && !this.closed; ++i) {
      if (this.inString) {
        i = this.throughString(bytes, i);
        continue;
      }
      const byte = bytes[i]!;
      if (isBlank(byte)) continue;
      const closing = byte === 0x7d || byte === 0x5d;
      if (this.depth === 0 && (byte === comma || closing)) {
        if (this.start >= 0) yield this.take();
        // A brace that nothing opened closes nothing; it belongs to no record.
        if (byte === 0x5d) this.closed = true;
        continue;
      }
      if (this.start < 0) this.start = this.at + i;
      this.end = this.at + i + 1;
      if (byte === quote) this.inString = true;
      else if (byte === 0x7b || byte === 0x5b) this.depth += 1;
      else if (closing) this.depth -= 1;
    }
  }

  /** Goes on to the end of the string or of the bytes; gives the last byte that was looked at. */
  private throughString(bytes: Uint8Array, from: number): number {
    let i = from;
    let escaped = this.escaped;
    for (; i < bytes.length; ++i) {
      const byte = bytes[i]!;
      if (escaped) escaped = false;
      else if (byte === backslash) escaped = true;
      else if (byte === quote) break;
    }
    this.escaped = escaped;
    this.inString = i === bytes.length;
    this.end = this.at + Math.min(i + 1, bytes.length);
    return i;
  }

  private take(): RecordSpan {
    const span = { start: this.start, length: this.end - this.start };
    this.start = -1;
    return span;
  }
}

const isBlank = (byte: number): boolean =>
  byte === 0x20 || byte === newline || byte === 0x0d || byte === 0x09;
