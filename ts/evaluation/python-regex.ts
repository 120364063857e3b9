import { fail } from '../native/index.ts';

// What Python's classes hold for text patterns: all of Unicode.
const classes: Readonly<Record<string, string>> = {
  d: '\\p{Nd}',
  w: '\\p{L}\\p{N}_',
  s: '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000',
};
const word = `[${classes.w}]`;
const outside: Readonly<Record<string, string>> = {
  b: `(?:(?<=${word})(?!${word})|(?<!${word})(?=${word}))`,
  B: `(?:(?<=${word})(?=${word})|(?<!${word})(?!${word}))`,
  A: '(?<![\\s\\S])',
  Z: '(?![\\s\\S])',
};

/**
 * A pattern of Python's `re` with its meaning there: `\d`, `\w`, `\s` and `\b` know all of Unicode, `(?P<name>…)` names a group, flags such as
 * `(?i)` may stand in front, any mark may be escaped; only `\n` ends a line, and `$` stands before a last one too.
 * @param flags further flags of JavaScript
 * @throws ERR_LIBMOE_CONFIG for a pattern that is none, or has the flag x
 */
export function pythonRegex(pattern: string, flags = ''): RegExp {
  const inline = /^\(\?([aimsux]+)\)/.exec(pattern);
  if (inline?.[1]?.includes('x'))
    fail(
      'ERR_LIBMOE_CONFIG',
      `${JSON.stringify(pattern)} has the flag x, which is not known here: write the pattern without white space and comments`,
    );
  const given = [...(inline?.[1] ?? '')].filter((flag) => 'ims'.includes(flag));
  let rest = pattern.slice(inline?.[0].length ?? 0);
  const [multiline, dotAll] = [...'ms'].map((flag) => given.includes(flag) || flags.includes(flag));
  let source = '';
  let inClass = false;
  while (rest !== '') {
    const next = rest[0]!;
    const named = /^\(\?P<(\w+)>/.exec(rest);
    const again = /^\(\?P=(\w+)\)/.exec(rest);
    let taken = 1;
    if (next === '\\') {
      taken = 2;
      source += escaped(rest[1] ?? '\\', inClass);
    } else if (named && !inClass) {
      taken = named[0].length;
      source += `(?<${named[1]}>`;
    } else if (again && !inClass) {
      taken = again[0].length;
      source += `\\k<${again[1]}>`;
    } else if (inClass) {
      // A bracket or brace inside a class is a plain mark there; with the flag u JavaScript wants it escaped.
      if (next === ']') inClass = false;
      source += next === '[' ? '\\[' : next;
    } else if (next === '[') {
      inClass = true;
      const start = /^\[\^?\]?/.exec(rest)![0];
      taken = start.length;
      source += start.replace(/\]$/, '\\]');
    } else if (next === '{' && !/^\{\d*(?:,\d*)?\}/.test(rest)) source += '\\{';
    else if (next === '}' && !/\{\d*(?:,\d*)?$/.test(source)) source += '\\}';
    else if (next === ']') source += '\\]';
    else if (next === '.' && !dotAll) source += '[^\\n]';
    else if (next === '$') source += multiline ? `(?=\\n|${outside.Z})` : `(?=\\n?${outside.Z})`;
    else if (next === '^' && multiline) source += `(?:(?<=\\n)|${outside.A})`;
    else source += next;
    rest = rest.slice(taken);
  }
  try {
    return new RegExp(source, [...new Set([...flags, ...given, 'u'])].join(''));
  } catch (cause) {
    return fail(
      'ERR_LIBMOE_CONFIG',
      `${JSON.stringify(pattern)} is no regular expression: ${(cause as Error).message}`,
      cause,
    );
  }
}

function escaped(mark: string, inClass: boolean): string {
  const set = classes[mark];
  if (set !== undefined) return inClass ? set : `[${set}]`;
  const inverse = classes[mark.toLowerCase()];
  if (inverse !== undefined && mark !== mark.toLowerCase()) {
    if (inClass && mark !== 'S')
      return mark === 'D'
        ? '\\P{Nd}'
        : fail('ERR_LIBMOE_CONFIG', 'a class cannot hold \\W here: write it out');
    return inClass ? '\\S' : `[^${inverse}]`;
  }
  if (!inClass && Object.hasOwn(outside, mark)) return outside[mark]!;
  if (/[\dnrtfvxukpP^$\\.*+?()[\]{}|/-]/.test(mark)) return mark === '-' && !inClass ? '-' : `\\${mark}`;
  return mark;
}

/** `re.findall`: the texts of all matches; of their only group where there is one; of all groups where there are more. */
export function findAll(pattern: RegExp, text: string): (string | string[])[] {
  const global = pattern.global ? pattern : new RegExp(pattern.source, `${pattern.flags}g`);
  return [...text.matchAll(global)].map(([whole, ...groups]) =>
    groups.length === 0
      ? whole
      : groups.length === 1
        ? (groups[0] ?? '')
        : groups.map((group) => group ?? ''),
  );
}
