import { fail } from '../../native/index.ts';
import {
  bootstrapStandardError,
  clusteredStandardError,
  exactSum,
  groupStandardError,
  mean,
  meanStandardError,
} from '../statistics.ts';
import { type GroupKey, keyReader } from './columns.ts';
import type { ReportedDocument } from './report.ts';
import type { ReportBlock } from './report-schema.ts';

/** A number, how many documents (or units) made it, and its standard error where one is defined. */
export interface Statistic {
  value: number;
  count: number;
  error?: number | ((resamples: number) => Promise<number>);
}

type Aggregate = Extract<ReportBlock, { agg: string }>;
/** A block of a report that names what makes its number. */
export type Special<Use extends string> = Extract<ReportBlock, { use: Use }>;

const list = <T>(one: T | readonly T[]): readonly T[] => (Array.isArray(one) ? one : [one as T]);

/** Values of a metric with their documents; documents that do not count are left out. */
function counted(documents: readonly ReportedDocument[], metric: string): [number, ReportedDocument][] {
  return documents.flatMap((document): [number, ReportedDocument][] => {
    const value = document.score.values[metric];
    return value === null || value === undefined ? [] : [[value, document]];
  });
}

/** Documents by the value of a key, in the order of the values' names, so that the order of documents changes nothing. */
export function groupsOf(
  documents: readonly ReportedDocument[],
  key: GroupKey,
): [string, ReportedDocument[]][] {
  const read = keyReader(key);
  const groups = new Map<string, ReportedDocument[]>();
  for (const document of documents)
    for (const name of read(document.doc, document.score.detail)) {
      const members = groups.get(name);
      if (members === undefined) groups.set(name, [document]);
      else members.push(document);
    }
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1));
}

function total(values: readonly number[], drawn: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < drawn.length; i++) sum += values[drawn[i]!]!;
  return sum;
}

/** The standard error of a mean, by clusters where there are some. */
export function meanError(
  values: readonly number[],
  documents: readonly ReportedDocument[],
  clusters: GroupKey | undefined,
): number {
  if (clusters === undefined) return meanStandardError(values);
  const read = keyReader(clusters);
  return clusteredStandardError(
    values,
    documents.map(({ doc, score }) => read(doc, score.detail).join('\u0000')),
  );
}

function middle(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function meanOfGroups(documents: readonly ReportedDocument[], block: Aggregate, depth: number): Statistic {
  const keys = list(block.within ?? []);
  const key = keys[depth];
  if (key === undefined) {
    const values = counted(documents, block.of).map(([value]) => value);
    return { value: mean(values), count: values.length, error: meanStandardError(values) };
  }
  const groups = groupsOf(documents, key)
    .map(([, members]) => meanOfGroups(members, block, depth + 1))
    .filter(({ count }) => count > 0);
  if (groups.length === 0) return { value: Number.NaN, count: 0 };
  return {
    value: mean(groups.map(({ value }) => value)),
    count: groups.reduce((sum, { count }) => sum + count, 0),
    error: groupStandardError(
      groups.map(({ error }) => error as number),
      groups.map(({ count }) => count),
      false,
    ),
  };
}

/** The plain ways of making one number of many. */
export function aggregate(
  documents: readonly ReportedDocument[],
  block: Aggregate,
  libmoe: boolean,
): Statistic {
  if (block.agg === 'mean_of_group_means') return meanOfGroups(documents, block, 0);
  const pairs = counted(documents, block.of);
  const values = pairs.map(([value]) => value);
  const count = values.length;
  const rows = pairs.map(([, document]) => document);
  const bootstrap = (of: (drawn: Int32Array) => number) => (resamples: number) =>
    bootstrapStandardError(count, of, resamples);
  switch (block.agg) {
    case 'mean':
      return { value: mean(values), count, error: meanError(values, rows, block.clusters) };
    case 'sum':
      return { value: exactSum(values), count, error: count * meanError(values, rows, block.clusters) };
    case 'count':
      return { value: count, count };
    case 'minimum':
      return { value: Math.min(...values), count };
    case 'maximum':
      return { value: Math.max(...values), count };
    case 'median':
      // The original takes the middle of the list as it comes.
      return libmoe
        ? { value: values[Math.floor(count / 2)] ?? Number.NaN, count }
        : {
            value: middle(values),
            count,
            error: bootstrap((drawn) => middle(Array.from(drawn, (i) => values[i]!))),
          };
    case 'perplexity':
      return {
        value: libmoe ? mean(values.map(Math.exp)) : Math.exp(-mean(values)),
        count,
        error: libmoe
          ? meanStandardError(values.map(Math.exp))
          : bootstrap((drawn) => Math.exp(-total(values, drawn) / drawn.length)),
      };
    case 'ratio': {
      const { over } = block;
      if (over === undefined)
        return fail('ERR_LIBMOE_CONFIG', 'agg: ratio needs over, the metric to divide by');
      const below = rows.map(({ score }) => score.values[over] ?? 0);
      return {
        value: exactSum(values) / exactSum(below),
        count,
        error: bootstrap((drawn) => total(values, drawn) / total(below, drawn)),
      };
    }
  }
}

/** One document for every unit: right if all of its rows are. Its columns are those of the base row. */
export function unitDocuments(
  documents: readonly ReportedDocument[],
  { unit, of }: Special<'group_consistency'>,
): ReportedDocument[] {
  const readers = list(unit).map(keyReader);
  const units = new Map<string, ReportedDocument[]>();
  for (const document of documents) {
    const name = JSON.stringify(readers.map((read) => read(document.doc, document.score.detail)));
    const members = units.get(name);
    if (members === undefined) units.set(name, [document]);
    else members.push(document);
  }
  const first = list(unit)[0]!;
  // Copies of a question have larger numbers than the question itself.
  const base = typeof first === 'object' && first.modulo !== undefined ? first.column : undefined;
  return [...units.values()].map((members) => {
    const values = counted(members, of).map(([value]) => value);
    const missing = members.find(
      ({ score }) => score.missing !== undefined && typeof score.values[of] !== 'number',
    )?.score.missing;
    const wrong = values.some((value) => value !== 1);
    const chosen =
      base === undefined
        ? members[0]!
        : members.reduce((a, b) => (Number(b.doc[base]) < Number(a.doc[base]) ? b : a));
    return {
      ...chosen,
      score: {
        values: { [of]: wrong ? 0 : values.length === 0 || missing !== undefined ? null : 1 },
        parsed: null,
        ...(chosen.score.detail && { detail: chosen.score.detail }),
        ...(!wrong && missing !== undefined && { missing }),
      },
    };
  });
}

const PERCEPTION = 'existence count position color posters celebrity scene landmark artwork OCR'.split(' ');
const COGNITION = 'commonsense_reasoning numerical_calculation text_translation code_reasoning'.split(' ');

/** MME's sums (Fu et al. 2023, arXiv 2306.13394): per image the share right and whether both are, per category their mean, at most 200. */
export function mmeScore(documents: readonly ReportedDocument[], block: Special<'mme'>): Statistic {
  const wanted =
    block.part === 'perception' ? PERCEPTION : block.part === 'cognition' ? COGNITION : undefined;
  const categories = groupsOf(documents, block.category)
    .filter(([name]) => wanted === undefined || wanted.includes(name))
    .map(([, rows]) => {
      const images = groupsOf(rows, block.unit).map(([, pair]) => {
        const values = counted(pair, block.of).map(([value]) => value);
        const right = exactSum(values);
        return values.length === 0 ? [] : [(100 * right) / values.length + (right === 2 ? 100 : 0)];
      });
      return images.flat();
    })
    .filter((images) => images.length > 0);
  const scale = block.part === 'percent' ? 100 / (200 * categories.length) : 1;
  const errors = categories.map(meanStandardError);
  return {
    value: categories.length === 0 ? Number.NaN : exactSum(categories.map(mean)) * scale,
    count: categories.reduce((sum, images) => sum + images.length, 0),
    error: Math.sqrt(exactSum(errors.map((e) => e * e))) * scale,
  };
}

interface Confusion {
  truePositives: number;
  falsePositives: number;
  falseNegatives: number;
}

const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
const confusionNumbers = {
  precision: ({ truePositives, falsePositives }: Confusion) =>
    ratio(truePositives, truePositives + falsePositives),
  recall: ({ truePositives, falseNegatives }: Confusion) =>
    ratio(truePositives, truePositives + falseNegatives),
  f1: ({ truePositives, falsePositives, falseNegatives }: Confusion) =>
    ratio(2 * truePositives, 2 * truePositives + falsePositives + falseNegatives),
};

/** POPE's numbers (Li et al. 2023, arXiv 2305.10355). An answer that is neither yes nor no is wrong, but no false negative. */
export function confusionScore(
  documents: readonly ReportedDocument[],
  block: Special<'confusion'>,
): Statistic {
  const rows = documents.filter(({ score }) => score.missing === undefined);
  const facts = rows.map(({ score }) => {
    const { answer, gold } = score.detail ?? {};
    if (gold !== 'yes' && gold !== 'no')
      return fail('ERR_LIBMOE_CONFIG', 'use: confusion needs a scorer of yes and no: score: { use: yes_no }');
    return { answer, gold };
  });
  const count = rows.length;
  const share = (of: (fact: (typeof facts)[number]) => boolean): Statistic => {
    const values = facts.map((fact) => Number(of(fact)));
    return { value: mean(values), count, error: meanError(values, rows, block.clusters) };
  };
  const { part } = block;
  if (part === 'accuracy') return share(({ answer, gold }) => answer === gold);
  // The original reports the share of yes among the right answers under this name.
  if (part === 'yes_ratio') return share(({ gold }) => gold === 'yes');
  if (part === 'predicted_yes_ratio') return share(({ answer }) => answer === 'yes');
  const kinds = Uint8Array.from(facts, ({ answer, gold }) =>
    answer === 'yes' ? (gold === 'yes' ? 1 : 2) : answer === 'no' && gold === 'yes' ? 3 : 0,
  );
  const number = confusionNumbers[part];
  const of = (at: (i: number) => number): number => {
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < count; i++) counts[kinds[at(i)]!]! += 1;
    return number({ truePositives: counts[1]!, falsePositives: counts[2]!, falseNegatives: counts[3]! });
  };
  return {
    value: of((i) => i),
    count,
    error: (resamples) => bootstrapStandardError(count, (drawn) => of((i) => drawn[i]!), resamples),
  };
}
