import { fail } from '../native/index.ts';
import type { LastWord } from './last-word.ts';
import {
  type Metric,
  type MetricValue,
  meanMetric,
  number,
  pair,
  registerMetric,
  type ScoredQuestion,
  type ScorerMode,
} from './metrics.ts';
import { bootstrapStandardError, mean, meanStandardError } from './statistics.ts';

const lastWordOf = ({ lastWord }: ScoredQuestion): LastWord =>
  lastWord ?? fail('ERR_LIBMOE_STATE', 'this metric needs what the model gave for the last word');
const ofMode = (values: readonly MetricValue[], mode: ScorerMode): number[] =>
  values.map((value) => pair(value)[mode === 'libmoe' ? 0 : 1]);
const register = (name: string, metric: Omit<Metric, 'appliesTo' | 'asks'>): void =>
  registerMetric(name, { ...metric, appliesTo: ['loglikelihood_rolling'], asks: 'last_word' });

register('last_word', {
  higherIsBetter: true,
  item: (scored) => lastWordOf(scored).right,
  aggregate: (values, mode) => mean(ofMode(values, mode)),
  standardError: (values, mode) => meanStandardError(ofMode(values, mode)),
});
register(
  'last_token',
  meanMetric((scored) => lastWordOf(scored).lastToken, []),
);
register('last_word_perplexity', {
  higherIsBetter: false,
  item: (scored) => lastWordOf(scored).loss,
  aggregate: (values) => Math.exp(mean(values.map(number))),
  standardError: (values, _mode, resamples) => {
    const losses = values.map(number);
    return bootstrapStandardError(
      losses.length,
      (drawn) => Math.exp(drawn.reduce((sum, i) => sum + losses[i]!, 0) / drawn.length),
      resamples,
    );
  },
});
