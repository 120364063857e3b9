import { fail } from '../native/index.ts';
import { argmax, type Metric, type MetricValue, registerMetric, type ScoredQuestion } from './metrics.ts';
import { bootstrapStandardError } from './statistics.ts';

/** Questions by answer given and answer wanted. */
interface Table {
  truePositives: number;
  falsePositives: number;
  falseNegatives: number;
  all: number;
}

function saysYes({ question }: ScoredQuestion, choice: number): boolean {
  const text = question.choices[choice]?.trim().toLowerCase();
  if (text === undefined || text === 'yes' || text === 'no') return text === 'yes';
  return fail(
    'ERR_LIBMOE_DATA',
    `document ${question.docId}: yes/no metrics need the choices yes and no, got ${JSON.stringify(question.choices)}`,
  );
}

function tableOf(values: readonly MetricValue[]): Table {
  const table = { truePositives: 0, falsePositives: 0, falseNegatives: 0, all: values.length };
  for (const [answered, wanted] of values as readonly (readonly [number, number])[]) {
    if (answered === 1 && wanted === 1) table.truePositives += 1;
    else if (answered === 1) table.falsePositives += 1;
    else if (wanted === 1) table.falseNegatives += 1;
  }
  return table;
}

const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);

/** A number made of the table of answers of a yes/no task, as POPE reports it (Li et al. 2023, arXiv 2305.10355). */
function yesNoMetric(of: (table: Table) => number, higherIsBetter = true): Metric {
  return {
    higherIsBetter,
    appliesTo: ['multiple_choice'],
    item: (scored) => {
      const answer = argmax(scored.sums);
      const yes = answer >= 0 && saysYes(scored, answer);
      return [Number(yes), Number(scored.question.gold.some((gold) => saysYes(scored, gold)))];
    },
    aggregate: (values) => of(tableOf(values)),
    standardError: (values, _mode, resamples) =>
      bootstrapStandardError(
        values.length,
        (drawn) => of(tableOf(Array.from(drawn, (i) => values[i]!))),
        resamples,
      ),
  };
}

registerMetric(
  'yes_precision',
  yesNoMetric(({ truePositives, falsePositives }) => share(truePositives, truePositives + falsePositives)),
);
registerMetric(
  'yes_recall',
  yesNoMetric(({ truePositives, falseNegatives }) => share(truePositives, truePositives + falseNegatives)),
);
registerMetric(
  'yes_f1',
  yesNoMetric(({ truePositives, falsePositives, falseNegatives }) =>
    share(2 * truePositives, 2 * truePositives + falsePositives + falseNegatives),
  ),
);
registerMetric(
  'yes_ratio',
  yesNoMetric(({ truePositives, falsePositives, all }) => share(truePositives + falsePositives, all)),
);
