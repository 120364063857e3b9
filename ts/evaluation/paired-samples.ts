import { fail } from '../native/index.ts';
import { rowHash, type Sample } from './results.ts';

const shown = 5;

function numbered(samples: readonly Sample[]): string {
  const ids = [...new Set(samples.map(({ doc_id: id }) => id))];
  return `${ids.length} (${ids.slice(0, shown).join(', ')}${ids.length > shown ? ', …' : ''})`;
}

/**
 * The lines of `b` in the order of those of `a`.
 * @param names of the two runs, for messages
 * @throws ERR_LIBMOE_DATA saying which documents only one run has, which have other contents, and which were asked otherwise
 */
export function pairSamples(
  task: string,
  a: readonly Sample[],
  b: readonly Sample[],
  names: readonly [string, string],
  otherPrompts = false,
): Sample[] {
  const key = ({ doc_id: id, filter }: Sample): string => `${id},${filter}`;
  const others = new Map(b.map((sample) => [key(sample), sample]));
  const own = new Set(a.map(key));
  const paired = a.flatMap((sample) => {
    const other = others.get(key(sample));
    return other === undefined ? [] : [[sample, other] as const];
  });
  const onlyA = a.filter((sample) => !others.has(key(sample)));
  const onlyB = b.filter((sample) => !own.has(key(sample)));
  // Hashes of older results are over the paths of media too.
  const same = (x: Sample, y: Sample): boolean =>
    x.doc_hash === y.doc_hash || rowHash(x.doc) === rowHash(y.doc);
  const changed = paired.filter(([x, y]) => !same(x, y) || x.target_hash !== y.target_hash);
  const found = [
    ...(onlyA.length > 0 ? [`only ${names[0]} has documents ${numbered(onlyA)}`] : []),
    ...(onlyB.length > 0 ? [`only ${names[1]} has documents ${numbered(onlyB)}`] : []),
    ...(changed.length > 0
      ? [`documents ${numbered(changed.map(([x]) => x))} have other contents or right answers`]
      : []),
  ];
  if (found.length > 0)
    fail(
      'ERR_LIBMOE_DATA',
      `task ${task}: a paired test needs the same documents in ${names[0]} and ${names[1]}, but ${found.join('; ')}: evaluate both with the same data and the same --limit or --samples`,
    );
  const asked = paired.filter(([x, y]) => x.prompt_hash !== y.prompt_hash);
  if (asked.length > 0 && !otherPrompts)
    fail(
      'ERR_LIBMOE_DATA',
      `task ${task}: ${names[0]} and ${names[1]} asked documents ${numbered(asked.map(([x]) => x))} with other prompts (other examples, description or template): --other-prompts compares them all the same`,
    );
  return paired.map(([, other]) => other);
}
