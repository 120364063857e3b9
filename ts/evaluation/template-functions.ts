import { fail } from '../native/index.ts';
import { parseJson } from '../storage/json.ts';
import { pyRound } from './python-number.ts';
import { capitalize, codePoints, strip, stripEnd, stripStart } from './python-text.ts';
import { readPythonList } from './scorers/python-literal.ts';

/** What may be called on a value. */
export const METHODS: Record<string, (self: unknown, args: unknown[]) => unknown> = {
  strip: (self) => strip(asText(self)),
  lstrip: (self) => stripStart(asText(self)),
  rstrip: (self) => stripEnd(asText(self)),
  lower: (self) => asText(self).toLowerCase(),
  upper: (self) => asText(self).toUpperCase(),
  capitalize: (self) => capitalize(asText(self)),
  replace: (self, [from, to]) => asText(self).replaceAll(asText(from), asText(to)),
  split: (self, [by, most]) => {
    const parts = asText(self).split(asText(by));
    const kept = most === undefined ? parts.length : Number(most);
    return parts.length <= kept + 1 ? parts : [...parts.slice(0, kept), parts.slice(kept).join(asText(by))];
  },
  rsplit: (self, [by, most]) => {
    const parts = asText(self).split(asText(by));
    const joined = most === undefined ? 0 : Math.max(0, parts.length - Number(most));
    return joined <= 1 ? parts : [parts.slice(0, joined).join(asText(by)), ...parts.slice(joined)];
  },
  join: (self, [items]) => asList(items).map(asText).join(asText(self)),
  startswith: (self, [start]) => asText(self).startsWith(asText(start)),
  endswith: (self, [end]) => asText(self).endsWith(asText(end)),
  contains: (self, [part]) =>
    Array.isArray(self) ? self.includes(part) : asText(self).includes(asText(part)),
  /** Of a list of images those whose marker `<image 1>`, `<image 2>` … stands in the text (MMMU). */
  marked: (self, [images]) => {
    const prompt = asText(self);
    return asList(images).filter((_, i) => prompt.includes(`<image ${i + 1}>`));
  },
  /** A list over and over; nothing for 0 and below, as Python's `*`. */
  times: (self, [count]) => Array.from({ length: Math.max(0, Number(count)) }, () => asList(self)).flat(),
  /** A list without the items that are equal to this. */
  without: (self, [item]) => asList(self).filter((one) => one !== item),
  /** A column, or null where there is none: `doc.get("hint")`. */
  get: (self, [name]) => {
    const key = asText(name);
    const isMap = typeof self === 'object' && self !== null && !Array.isArray(self);
    return isMap && Object.hasOwn(self, key) ? (self as Record<string, unknown>)[key] : null;
  },
  /** A number with so many digits after the point, as Python's format `.2f` writes it. */
  fixed: (self, [digits]) =>
    typeof self === 'number'
      ? pyRound(self, Number(digits)).toFixed(Number(digits))
      : fail('ERR_LIBMOE_DATA', `a number expected, got ${JSON.stringify(self)}`),
  index: (self, [wanted]) => {
    const at = asList(self).indexOf(wanted);
    return at >= 0
      ? at
      : fail('ERR_LIBMOE_DATA', `${JSON.stringify(wanted)} is not in ${JSON.stringify(self)}`);
  },
};

/** What may stand after `|`. */
export const FILTERS: Record<string, (self: unknown) => unknown> = {
  trim: METHODS.strip as (self: unknown) => unknown,
  strip: METHODS.strip as (self: unknown) => unknown,
  lower: METHODS.lower as (self: unknown) => unknown,
  upper: METHODS.upper as (self: unknown) => unknown,
  capitalize: METHODS.capitalize as (self: unknown) => unknown,
  length: (self) => (Array.isArray(self) ? self.length : codePoints(asText(self))),
  int: (self) => Math.trunc(Number(self)),
  string: (self) => String(self),
  /** A list of texts a line each; a text as it is. */
  lines: (self) => (Array.isArray(self) ? self.map(asText).join('\n') : asText(self)),
  /** Options a line each: `A. first`; what is null is left out and the letters of the others stay. */
  lettered: (self) => optionLines(self, (letter, option) => `${letter}. ${option}`),
  /** The same as `(A) first`. */
  bracketed: (self) => optionLines(self, (letter, option) => `(${letter}) ${option}`),
  /** A list with null in place of the ways to write "nothing": "", "nan". */
  known: (self) => asList(self).map((item) => (item === '' || item === 'nan' ? null : item)),
  /** What a text says in JSON. */
  from_json: (self) => parseJson(asText(self), 'the text of a column', 'ERR_LIBMOE_DATA'),
  /** A value as Python's `json.dumps` writes it; a text stays as it is. */
  json_text: (self) => (typeof self === 'string' ? self : pythonJson(self)),
  /** The list that a text spells in Python. */
  literal_list: (self) =>
    Array.isArray(self)
      ? self
      : (readPythonList(asText(self)) ??
        fail('ERR_LIBMOE_DATA', `the text of a Python list expected, got ${JSON.stringify(self)}`)),
};

function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value === 'object' && value !== null)
    return `{${Object.entries(value)
      .map(([key, each]) => `${pythonJson(key)}: ${pythonJson(each)}`)
      .join(', ')}}`;
  // Outside of printable ASCII everything is escaped there.
  return (JSON.stringify(value) ?? 'null').replace(
    /[^ -~]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function optionLines(options: unknown, line: (letter: string, option: string) => string): string {
  return asList(options)
    .flatMap((option, i) => (option === null ? [] : [line(String.fromCharCode(65 + i), asText(option))]))
    .join('\n');
}

/** Python's truth: empty texts and lists, 0 and None are false. */
export function truthy(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

/** A text or number as text. @throws ERR_LIBMOE_DATA for anything else */
export function asText(value: unknown): string {
  return typeof value === 'string'
    ? value
    : typeof value === 'number'
      ? String(value)
      : fail('ERR_LIBMOE_DATA', `text expected, got ${JSON.stringify(value)}`);
}

function asList(value: unknown): unknown[] {
  return Array.isArray(value)
    ? value
    : fail('ERR_LIBMOE_DATA', `a list expected, got ${JSON.stringify(value)}`);
}
