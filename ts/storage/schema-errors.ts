import { z } from 'zod';

/** Edits (insert, delete, replace, swap of neighbours) that turn one word into the other. */
function distance(a: string, b: string): number {
  const rows: number[][] = [[...Array(b.length + 1).keys()]];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = rows[i - 1]![j - 1]! + Number(a[i - 1] !== b[j - 1]);
      let best = Math.min(row[j - 1]! + 1, rows[i - 1]![j]! + 1, replaced);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      }
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** Whether `short` is `long` with letters left out, such as `vocabSize` of `vocabularySize`. */
function abbreviates(short: string, long: string): boolean {
  let at = 0;
  for (const letter of long) if (letter === short[at]) at += 1;
  return at === short.length && short.length >= 3 && short[0] === long[0];
}

/** The known key that `key` was probably meant to be, if any is near. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  const typed = key.toLowerCase();
  const ranked = known
    .map((candidate) => ({ candidate, edits: distance(typed, candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  if (best !== undefined && best.edits <= Math.max(2, Math.floor(key.length / 3))) return best.candidate;
  return ranked.find(
    ({ candidate: { length }, candidate }) =>
      abbreviates(typed, candidate.toLowerCase()) ||
      (length >= 4 && abbreviates(candidate.toLowerCase(), typed)),
  )?.candidate;
}

type Issue = z.core.$ZodIssue;

/** The schemas that stand behind optional, default and union; of a discriminated union the one that `value` names. */
function alternatives(schema: unknown, value: unknown): unknown[] {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodPrefault
  )
    return alternatives(schema.unwrap(), value);
  if (schema instanceof z.ZodPipe) return alternatives(schema.in, value);
  if (!(schema instanceof z.ZodUnion)) return [schema];
  const options: readonly unknown[] = schema.options;
  if (schema instanceof z.ZodDiscriminatedUnion) {
    const key: string = schema.def.discriminator;
    const named = options.filter(
      (option) => option instanceof z.ZodObject && z.safeParse(option.shape[key], child(value, key)).success,
    );
    if (named.length > 0) return named;
  }
  return options.flatMap((option) => alternatives(option, value));
}

const child = (value: unknown, key: PropertyKey): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined;

function keysAt(schema: unknown, path: readonly PropertyKey[], value: unknown): string[] {
  const here = alternatives(schema, value);
  const [key, ...rest] = path;
  if (key === undefined)
    return [...new Set(here.flatMap((s) => (s instanceof z.ZodObject ? Object.keys(s.shape) : [])))];
  const below = here.flatMap((s): unknown[] => {
    if (s instanceof z.ZodObject) return [(s.shape as Record<PropertyKey, unknown>)[key]];
    if (s instanceof z.ZodRecord) return [s.valueType];
    return s instanceof z.ZodArray ? [s.element] : [];
  });
  return [...new Set(below.flatMap((s) => keysAt(s, rest, child(value, key))))];
}

/**
 * The issues of that branch of a union which was most likely meant: the one with the least to change. A branch that expects another
 * kind of value altogether counts only when all do.
 */
function likeliestBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const isOtherKind = (branch: readonly Issue[]) =>
    branch.some(({ code, path }) => code === 'invalid_type' && path.length === 0);
  const wrong = (branch: readonly Issue[]): number =>
    branch.reduce((sum, issue) => sum + (issue.code === 'unrecognized_keys' ? issue.keys.length : 1), 0);
  return branches.filter((branch) => !isOtherKind(branch)).sort((a, b) => wrong(a) - wrong(b))[0];
}

const orList = (words: readonly unknown[]): string => [...new Set(words)].join(' or ');

function got(value: unknown): string {
  return value === undefined
    ? 'nothing'
    : typeof value === 'object' && value !== null
      ? Array.isArray(value)
        ? 'a list'
        : 'a map of keys'
      : JSON.stringify(value);
}

function explain(schema: unknown, issue: Issue, input: unknown, above: readonly PropertyKey[]): string[] {
  const path = [...above, ...issue.path];
  const where = path.map(String).join('.') || 'the configuration';
  const value = path.reduce(child, input);
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, path, input);
    return issue.keys.map((key) => {
      const near = nearestKey(key, known);
      const hint =
        near === undefined ? ` (known: ${known.join(', ') || 'none'})` : `, did you mean "${near}"?`;
      return `unknown key "${[...path, key].map(String).join('.')}"${hint}`;
    });
  }
  if (issue.code === 'invalid_union') {
    const branch = likeliestBranch(issue.errors);
    if (branch !== undefined) return branch.flatMap((inner) => explain(schema, inner, input, path));
    const { options } = issue as { options?: readonly unknown[] };
    const expected =
      options ??
      issue.errors.flatMap((b) => b.map((i) => (i.code === 'invalid_type' ? i.expected : i.message)));
    const near = typeof value === 'string' && options ? nearestKey(value, options.map(String)) : undefined;
    return [
      `${where}: expected ${orList(expected)}, got ${got(value)}${near ? `, did you mean "${near}"?` : ''}`,
    ];
  }
  if (issue.code === 'invalid_type') return [`${where}: expected ${issue.expected}, got ${got(value)}`];
  return [`${where}: ${issue.message}, got ${got(value)}`];
}

/**
 * One sentence for all issues of a failed check of `input`: path, what was expected and what came; for unknown keys the nearest known one.
 * Of a union the branch is explained that was most likely meant.
 */
export function explainIssues(schema: z.ZodType, issues: readonly Issue[], input: unknown): string {
  const sentences = issues.flatMap((issue) => explain(schema, issue, input, []));
  const more = sentences.length > 5 ? `; and ${sentences.length - 5} more` : '';
  return sentences.slice(0, 5).join('; ') + more;
}
