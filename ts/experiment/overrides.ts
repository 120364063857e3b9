import { parse } from 'yaml';
import { fail } from '../native/index.ts';

type Tree = { [key: string]: unknown };
const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Keys of which a tree has one: the tree with another takes the place of the whole. Sources of data, and parts of a model: of a checkpoint, or new. */
const alternatives = [
  ['files', 'dataset', 'conversations'],
  ['checkpoint', 'dModel'],
] as const;
const another = (a: Tree, b: Tree): boolean =>
  alternatives.some((keys) =>
    keys.some((key) => key in a && !(key in b) && keys.some((other) => other in b)),
  );

/**
 * `base` with every leaf of `changes` laid over it; lists replace lists, and a source of another kind replaces a source. Neither argument is
 * changed.
 */
export function merged(base: Tree, changes: Tree): Tree {
  const out: Tree = { ...base };
  for (const [key, value] of Object.entries(changes)) {
    const before = out[key];
    out[key] = isTree(before) && isTree(value) && !another(before, value) ? merged(before, value) : value;
  }
  return out;
}

/**
 * Turns `--set training.steps=20` texts into a tree; values are YAML (`true`, `0.5`, `[1, 2]`, `{a: 1}`, plain text).
 * @param option what the texts were given with
 * @throws ERR_LIBMOE_RECIPE for a text that is not `dotted.path=value`
 */
export function parseOverrides(texts: readonly string[], option = '--set'): Tree {
  let tree: Tree = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    const path = text.slice(0, at).split('.');
    if (at < 1 || path.some((part) => !/^[A-Za-z_][\w-]*$/.test(part))) {
      fail(
        'ERR_LIBMOE_RECIPE',
        `${option} expects dotted.path=value, such as ${option === '--set' ? 'training.steps=100' : 'balanceCoefficient=0.01'}, got "${text}"`,
      );
    }
    let value: unknown;
    try {
      value = parse(text.slice(at + 1));
    } catch (cause) {
      fail('ERR_LIBMOE_RECIPE', `${option} ${text}: the value is not YAML (quote it if it is text)`, cause);
    }
    tree = merged(
      tree,
      path.reduceRight<Tree>((inner, key, i) => ({ [key]: i === path.length - 1 ? value : inner }), {}),
    );
  }
  return tree;
}
