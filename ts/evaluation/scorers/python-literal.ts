/** A value that Python writes as a literal. */
export type PythonValue = string | number | boolean | null | PythonValue[] | PythonDictionary;
/** A dictionary whose keys are texts. */
export interface PythonDictionary {
  [key: string]: PythonValue;
}

/**
 * Reads a Python list of plain values, as data sets store options ("['a', \"b's\"]"); undefined for anything else.
 */
export function readPythonList(source: string): PythonValue[] | undefined {
  const reader = new Reader(source);
  const value = reader.value();
  return Array.isArray(value) && reader.atEnd() ? value : undefined;
}

/** A list as Python displays it: `repr` of texts, whole numbers, truth values, None and lists of them; undefined for anything else. */
export function showPythonList(values: readonly unknown[]): string | undefined {
  const shown = values.map(showPython);
  return shown.includes(undefined) ? undefined : `[${shown.join(', ')}]`;
}

function showPython(value: unknown): string | undefined {
  if (typeof value === 'string') return showText(value);
  if (Array.isArray(value)) return showPythonList(value);
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (value === null) return 'None';
  return Number.isSafeInteger(value) ? String(value) : undefined;
}

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' };

function showText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const shown = [...text].map((c) => {
    if (c === quote) return `\\${c}`;
    if (SHORT[c] !== undefined) return SHORT[c];
    if (c === ' ' || !/[\p{C}\p{Z}]/u.test(c)) return c;
    const code = c.codePointAt(0)!.toString(16);
    if (code.length <= 2) return `\\x${code.padStart(2, '0')}`;
    return code.length <= 4 ? `\\u${code.padStart(4, '0')}` : `\\U${code.padStart(8, '0')}`;
  });
  return quote + shown.join('') + quote;
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
    if (first === '{') return this.dictionary();
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

  private dictionary(): PythonDictionary | undefined {
    this.at++;
    const entries: [string, PythonValue][] = [];
    for (;;) {
      this.skip();
      const mark = this.source[this.at];
      if (mark === '}') {
        this.at++;
        return Object.fromEntries(entries);
      }
      const key = mark === "'" || mark === '"' ? this.text(mark) : undefined;
      this.skip();
      if (key === undefined || this.source[this.at++] !== ':') return undefined;
      const value = this.value();
      if (value === undefined) return undefined;
      entries.push([key, value]);
      this.skip();
      if (this.source[this.at] === ',') this.at++;
      else if (this.source[this.at] !== '}') return undefined;
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
        const code = Number.parseInt(this.source.slice(this.at + 1, this.at + 1 + length), 16);
        read += String.fromCodePoint(Number.isNaN(code) ? 0xfffd : code);
        this.at += length;
      }
    }
    return undefined;
  }
}
