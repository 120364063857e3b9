import { fail } from '../native/index.ts';
import { showPythonList } from './scorers/python-literal.ts';
import { asText, FILTERS, METHODS, truthy } from './template-functions.ts';

/**
 * The part of Jinja2 that text tasks use: `{{ expression }}` with columns, `.name`, `[index]`, literals, lists, `+`,
 * `a if b else c` with `== != in and or not`, a closed set of string and list methods and of filters. No statements, no access to anything but the document's own
 * properties, so a task file from elsewhere cannot reach the host. A column that is missing is an error, as in lm-eval.
 */
export type Template = (row: Readonly<Record<string, unknown>>) => unknown;

type Evaluate = (row: Readonly<Record<string, unknown>>) => unknown;

/**
 * Compiles a template. A template that is one single expression gives that expression's value (a list stays a list);
 * anything else gives text.
 * @throws ERR_LIBMOE_CONFIG for syntax outside the subset; the template itself throws ERR_LIBMOE_DATA for a missing column
 */
export function compileTemplate(source: string): Template {
  if (/\{[%#]/.test(source))
    fail(
      'ERR_LIBMOE_CONFIG',
      `templates have {{ expressions }} only, no {% statements %} or {# comments #}: ${quote(source)}. Prepare such a column in a registered data set instead`,
    );
  const parts: (string | Evaluate)[] = [];
  let rest = source;
  for (;;) {
    const open = rest.indexOf('{{');
    if (open < 0) break;
    const close = rest.indexOf('}}', open);
    if (close < 0) fail('ERR_LIBMOE_CONFIG', `"{{" without "}}" in template ${quote(source)}`);
    if (open > 0) parts.push(rest.slice(0, open));
    parts.push(new Parser(rest.slice(open + 2, close), source).parse());
    rest = rest.slice(close + 2);
  }
  if (rest !== '') parts.push(rest);
  const [only] = parts;
  if (parts.length === 1 && typeof only === 'function') return only;
  return (row) => parts.map((part) => (typeof part === 'string' ? part : text(part(row), source))).join('');
}

// Text in either quotes, a number, a name, or one mark; each with the space before it.
const TOKEN =
  /\s*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|(==|!=|[.,()[\]|+-]))/uy;

class Parser {
  private readonly tokens: { kind: 'text' | 'number' | 'name' | 'mark'; value: string }[] = [];
  private at = 0;

  constructor(
    expression: string,
    private readonly source: string,
  ) {
    TOKEN.lastIndex = 0;
    const end = expression.trimEnd().length;
    while (TOKEN.lastIndex < end) {
      const from = TOKEN.lastIndex;
      const found = TOKEN.exec(expression);
      if (found === null) this.wrong(`cannot read ${quote(expression.slice(from).trim())}`);
      const [, string, number, name, mark] = found as RegExpExecArray;
      if (string !== undefined) this.tokens.push({ kind: 'text', value: unquote(string) });
      else if (number !== undefined) this.tokens.push({ kind: 'number', value: number });
      else if (name !== undefined) this.tokens.push({ kind: 'name', value: name });
      else this.tokens.push({ kind: 'mark', value: mark ?? '' });
    }
  }

  parse(): Evaluate {
    const result = this.expression();
    if (this.at < this.tokens.length) this.wrong(`unexpected ${quote(this.tokens[this.at]!.value)}`);
    return result;
  }

  /** `a if condition else b`; the value that is not chosen is not looked at. */
  private expression(): Evaluate {
    const value = this.either();
    if (!this.word('if')) return value;
    const condition = this.either();
    if (!this.word('else')) this.wrong('"else" expected');
    const otherwise = this.expression();
    return (row) => (truthy(condition(row)) ? value(row) : otherwise(row));
  }

  private either(): Evaluate {
    const left = this.both();
    if (!this.word('or')) return left;
    const right = this.either();
    return (row) => truthy(left(row)) || truthy(right(row));
  }

  private both(): Evaluate {
    const left = this.compared();
    if (!this.word('and')) return left;
    const right = this.both();
    return (row) => truthy(left(row)) && truthy(right(row));
  }

  private compared(): Evaluate {
    if (this.word('not')) {
      const value = this.compared();
      return (row) => !truthy(value(row));
    }
    const left = this.filtered();
    if (this.take('==')) {
      const right = this.filtered();
      return (row) => left(row) === right(row);
    }
    if (this.take('!=')) {
      const right = this.filtered();
      return (row) => left(row) !== right(row);
    }
    if (!this.word('in')) return left;
    const right = this.filtered();
    return (row) => METHODS.contains!(right(row), [left(row)]);
  }

  private filtered(): Evaluate {
    let value = this.sum();
    while (this.take('|')) {
      const name = this.name();
      const filter = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined;
      if (filter === undefined) this.wrong(`no filter "${name}"; known: ${Object.keys(FILTERS).join(', ')}`);
      const before = value;
      value = (row) => (filter as (self: unknown) => unknown)(before(row));
    }
    return value;
  }

  private sum(): Evaluate {
    let value = this.postfix();
    for (;;) {
      const sign = this.take('+') ? 1 : this.take('-') ? -1 : 0;
      if (sign === 0) return value;
      const left = value;
      const right = this.postfix();
      value = (row) => add(left(row), right(row), sign);
    }
  }

  private postfix(): Evaluate {
    let value = this.primary();
    for (;;) {
      const before = value;
      if (this.take('.')) {
        const name = this.name();
        if (this.take('(')) {
          const method = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
          if (method === undefined)
            this.wrong(`no method "${name}"; known: ${Object.keys(METHODS).join(', ')}`);
          const args = this.list(')');
          value = (row) =>
            (method as (self: unknown, args: unknown[]) => unknown)(
              before(row),
              args.map((arg) => arg(row)),
            );
        } else value = (row) => member(before(row), name);
      } else if (this.take('[')) {
        const key = this.sum();
        this.expect(']');
        value = (row) => member(before(row), key(row));
      } else return value;
    }
  }

  private primary(): Evaluate {
    const token = this.tokens[this.at++];
    if (token === undefined) this.wrong('an expression ends too early');
    const { kind, value } = token as { kind: string; value: string };
    if (kind === 'text') return () => value;
    if (kind === 'number') return () => Number(value);
    if (kind === 'name' && value === 'none') return () => null;
    // The document itself, for names that are no identifiers and columns that may be missing.
    if (kind === 'name' && value === 'doc') return (row) => (Object.hasOwn(row, 'doc') ? row.doc : row);
    if (kind === 'name') return (row) => member(row, value);
    if (value === '-') {
      const negated = this.primary();
      return (row) => -Number(negated(row));
    }
    if (value === '(') {
      const inner = this.expression();
      this.expect(')');
      return inner;
    }
    if (value === '[') {
      const items = this.list(']');
      return (row) => items.map((item) => item(row));
    }
    return this.wrong(`unexpected ${quote(value)}`);
  }

  private list(end: string): Evaluate[] {
    const items: Evaluate[] = [];
    while (!this.take(end)) {
      items.push(this.expression());
      if (!this.take(',')) {
        this.expect(end);
        break;
      }
    }
    return items;
  }

  private take(mark: string): boolean {
    const token = this.tokens[this.at];
    if (token?.kind !== 'mark' || token.value !== mark) return false;
    this.at++;
    return true;
  }

  private word(name: string): boolean {
    const token = this.tokens[this.at];
    if (token?.kind !== 'name' || token.value !== name) return false;
    this.at++;
    return true;
  }

  private expect(mark: string): void {
    if (!this.take(mark)) this.wrong(`"${mark}" expected`);
  }

  private name(): string {
    const token = this.tokens[this.at++];
    return token?.kind === 'name' ? token.value : this.wrong('a name expected');
  }

  private wrong(why: string): never {
    return fail('ERR_LIBMOE_CONFIG', `template ${quote(this.source)}: ${why}`);
  }
}

function add(a: unknown, b: unknown, sign: 1 | -1): unknown {
  if (typeof a === 'number' && typeof b === 'number') return a + sign * b;
  if (sign < 0)
    fail('ERR_LIBMOE_DATA', `"-" needs two numbers, got ${JSON.stringify(a)} and ${JSON.stringify(b)}`);
  return Array.isArray(a) && Array.isArray(b) ? [...a, ...b] : asText(a) + asText(b);
}

function member(of: unknown, key: unknown): unknown {
  if (Array.isArray(of) && typeof key === 'number') {
    const index = key < 0 ? of.length + key : key;
    if (index in of) return of[index];
  } else if (typeof of === 'object' && of !== null && typeof key === 'string' && Object.hasOwn(of, key))
    return (of as Record<string, unknown>)[key];
  const has = typeof of === 'object' && of !== null ? `; it has ${Object.keys(of).join(', ')}` : '';
  return fail('ERR_LIBMOE_DATA', `the document has no ${JSON.stringify(key)}${has}`);
}

function text(value: unknown, source: string): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const list = Array.isArray(value) ? showPythonList(value) : undefined;
  if (list !== undefined) return list;
  return fail('ERR_LIBMOE_DATA', `template ${quote(source)} mixes text with ${JSON.stringify(value)}`);
}

function unquote(literal: string): string {
  const marks: Record<string, string> = { n: '\n', t: '\t', r: '\r' };
  return literal.slice(1, -1).replace(/\\(.)/gsu, (_, mark: string) => marks[mark] ?? mark);
}

function quote(value: string): string {
  return JSON.stringify(value.length > 120 ? `${value.slice(0, 117)}…` : value);
}
