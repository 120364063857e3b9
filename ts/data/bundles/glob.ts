import { fail } from '../../native/index.ts';
import { quoted } from '../word-encoder.ts';

const parts: Record<string, string> = {
  '**/': '(?:.*/)?',
  '**': '.*',
  '*': '[^/]*',
  '?': '[^/]',
  '{config}': '(?<config>[^/]+?)',
  '{split}': '(?<split>[^/]+?)',
};

/**
 * Matches names with slashes against a pattern of `*`, `**`, `?`, `[…]`, `{config}` and `{split}`; gives what the latter two stand for. Each of them counts
 * once: a second one must match the same text.
 * @throws ERR_LIBMOE_ARGUMENT for a pattern that is none
 */
export function globMatcher(pattern: string): (name: string) => Record<string, string> | undefined {
  const seen = new Set<string>();
  const expression = pattern
    .replace(/^\.\//, '')
    .split(/(\*\*\/|\*\*|\*|\?|\[[^\]]+\]|\{config\}|\{split\})/)
    .map((part) => {
      if (/^\[.+\]$/.test(part)) return part.replace(/^\[!/, '[^').replace(/\\/g, '\\\\');
      const again = /^\{(\w+)\}$/.exec(part)?.[1];
      if (again !== undefined && seen.has(again)) return `\\k<${again}>`;
      if (again !== undefined) seen.add(again);
      return Object.hasOwn(parts, part) ? parts[part]! : quoted(part);
    })
    .join('');
  let test: RegExp;
  try {
    test = new RegExp(`^${expression}$`);
  } catch (cause) {
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `"${pattern}" is no pattern of files: expected *, **, ?, [a-z] or [!a-z] (${(cause as Error).message})`,
      cause,
    );
  }
  return (name) => {
    const match = test.exec(name);
    return match === null ? undefined : { ...match.groups };
  };
}
