/** The value of an expression of numbers in LaTeX or plain notation; undefined for anything with letters or units. */
export function latexNumber(source: string): number | undefined {
  const tokens = source
    .replace(/\\(?:left|right|,|!|;|displaystyle)/g, '')
    .replace(/\\[dt]frac/g, '\\frac')
    .replace(/(?<=\d),(?=\d{3}(?!\d))/g, '')
    .match(/\d+\.?\d*(?:[eE][+-]?\d+(?![\d.]))?|\.\d+|\\[a-zA-Z]+|[-+*/^(){}[\]]|[^\s]/g);
  if (tokens === null) return undefined;
  const reader = new Reader(tokens);
  const value = reader.sum();
  return value !== undefined && reader.atEnd() && Number.isFinite(value) ? value : undefined;
}

class Reader {
  private at = 0;
  constructor(private readonly tokens: readonly string[]) {}

  atEnd(): boolean {
    return this.at === this.tokens.length;
  }
  private take(...wanted: string[]): string | undefined {
    const token = this.tokens[this.at];
    if (token === undefined || !wanted.includes(token)) return undefined;
    this.at += 1;
    return token;
  }

  sum(): number | undefined {
    let value = this.product();
    for (let sign = this.take('+', '-'); sign !== undefined; sign = this.take('+', '-')) {
      const next = this.product();
      if (value === undefined || next === undefined) return undefined;
      value += sign === '+' ? next : -next;
    }
    return value;
  }

  private product(): number | undefined {
    const sign = this.take('-', '+');
    let value = this.power();
    if (sign === '-' && value !== undefined) value = -value;
    while (value !== undefined && !this.atEnd()) {
      const sign = this.take('*', '\\times', '\\cdot', '/', '\\div');
      // "2\sqrt{3}" and "3\pi" multiply without a sign; a number after a value does not.
      if (sign === undefined && !/^(?:\(|\{|\\frac|\\sqrt|\\pi|π)$/.test(this.tokens[this.at]!)) break;
      const next = this.power();
      if (next === undefined) return undefined;
      value = sign === '/' || sign === '\\div' ? value / next : value * next;
    }
    return value;
  }

  private power(): number | undefined {
    const base = this.atom();
    if (base === undefined || this.take('^') === undefined) return base;
    const sign = this.take('-') === undefined ? 1 : -1;
    const exponent = this.power();
    return exponent === undefined ? undefined : base ** (sign * exponent);
  }

  private atom(): number | undefined {
    const token = this.tokens[this.at];
    if (token === undefined) return undefined;
    if (/^[\d.]/.test(token)) {
      this.at += 1;
      return Number(token);
    }
    if (this.take('\\pi', 'π') !== undefined) return Math.PI;
    if (this.take('(') !== undefined) return this.closed(')');
    if (this.take('{') !== undefined) return this.closed('}');
    if (this.take('\\frac') !== undefined) {
      const above = this.atom();
      const below = this.atom();
      return above === undefined || below === undefined ? undefined : above / below;
    }
    if (this.take('\\sqrt') !== undefined) {
      const root = this.take('[') === undefined ? 2 : this.closed(']');
      const of = this.atom();
      return root === undefined || of === undefined ? undefined : of ** (1 / root);
    }
    return undefined;
  }

  private closed(end: string): number | undefined {
    const value = this.sum();
    return this.take(end) === undefined ? undefined : value;
  }
}
