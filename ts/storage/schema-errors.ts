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

/** The known key that `key` was probably meant to be, if any is near. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, edits: distance(key.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(2, Math.floor(key.length / 3))
    ? best.candidate
    : undefined;
}

function unwrapped(schema: unknown): unknown {
  let here = schema;
  while (
    here instanceof z.ZodOptional ||
    here instanceof z.ZodDefault ||
    here instanceof z.ZodNullable ||
    here instanceof z.ZodPrefault
  ) {
    here = here.unwrap();
  }
  return here;
}

function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let here = unwrapped(schema);
  for (const part of path) {
    if (!(here instanceof z.ZodObject)) return [];
    here = unwrapped((here.shape as Record<string, unknown>)[String(part)]);
  }
  return here instanceof z.ZodObject ? Object.keys(here.shape) : [];
}

/** One sentence for all issues of a failed check: path, what was wrong and, for unknown keys, the nearest known one. */
export function explainIssues(schema: z.ZodType, issues: readonly z.core.$ZodIssue[]): string {
  const sentences = issues.slice(0, 5).map((issue) => {
    const where = issue.path.map(String).join('.');
    if (issue.code !== 'unrecognized_keys') return `${where || 'the configuration'}: ${issue.message}`;
    const known = keysAt(schema, issue.path);
    return issue.keys
      .map((key) => {
        const near = nearestKey(key, known);
        const hint =
          near === undefined ? ` (known: ${known.join(', ') || 'none'})` : `, did you mean "${near}"?`;
        return `unknown key "${where === '' ? key : `${where}.${key}`}"${hint}`;
      })
      .join('; ');
  });
  const more = issues.length > 5 ? `; and ${issues.length - 5} more` : '';
  return sentences.join('; ') + more;
}
