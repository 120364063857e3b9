/** A value that Python writes as a literal. */
export type PythonValue = string | number | boolean | null | PythonValue[];

/**
 * Reads a Python list of plain values, as data sets store options ("['a', \"b's\"]"); undefined for anything else.
 */
export function readPythonList(source: string): PythonValue[] | undefined {
  const reader = new Reader(source);
  const value = reader.value();
  return Array.isArray(value) && reader.atEnd() ? value : undefined;
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  '\n': '',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
};
const CODES: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

class Reader {
  private at = 0;
  constructor(private readonly source: string) {}

  private skip(): void {
    while (/\s/.test(this.source[this.at] ?? '')) this.at++;
  }
  atEnd(): boolean {
    this.skip();
    return this.at === this.source.length;
  }

  /** Undefined where no value starts. */
  value(): PythonValue | undefined {
    this.skip();
    const first = this.source[this.at];
    if (first === '[' || first === '(') return this.list(first === '[' ? ']' : ')');
    if (first === "'" || first === '"') return this.text(first);
    const word = /^(?:None|True|False|[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)/.exec(
      this.source.slice(this.at, this.at + 64),
    )?.[0];
    if (word === undefined) return undefined;
    this.at += word.length;
    return word === 'None'
      ? null
      : word === 'True'
        ? true
        : word === 'False'
          ? false
          : Number(word.replaceAll('_', ''));
  }

  private list(end: string): PythonValue[] | undefined {
    this.at++;
    const items: PythonValue[] = [];
    for (;;) {
      this.skip();
      if (this.source[this.at] === end) {
        this.at++;
        return items;
      }
      const item = this.value();
      if (item === undefined) return undefined;
      items.push(item);
      this.skip();
      if (this.source[this.at] === ',') this.at++;
      else if (this.source[this.at] !== end) return undefined;
    }
  }

  private text(quote: string): string | undefined {
    let read = '';
    for (this.at++; this.at < this.source.length; this.at++) {
      const c = this.source[this.at]!;
      if (c === quote) {
        this.at++;
        return read;
      }
      if (c !== '\\') {
        read += c;
        continue;
      }
      const escaped = this.source[++this.at] ?? '';
      const length = CODES[escaped];
      if (length === undefined)
        read += ESCAPES[escaped] ?? (/['"\\]/.test(escaped) ? escaped : `\\${escaped}`);
      else {
        read += String.fromCodePoint(
          Number.parseInt(this.source.slice(this.at + 1, this.at + 1 + length), 16) || 0xfffd,
        );
        this.at += length;
      }
    }
    return undefined;
  }
}
