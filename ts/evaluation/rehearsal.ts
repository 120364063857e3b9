import type { EvalModel } from './model.ts';
import type { Results } from './results.ts';
import { type EvaluateOptions, evaluate } from './run.ts';

/**
 * Results of an evaluation whose answers are made up: which numbers there will be, and of which more is better. What is wrong with tasks and data is
 * found as by evaluate; the model is not asked anything.
 * @throws as evaluate
 */
export async function rehearse(
  model: EvalModel,
  options: Pick<EvaluateOptions, 'tasks' | 'limit' | 'scorer'>,
): Promise<Results> {
  const { name, tokenizer, maxLength, imagePlaceholder, endTokens } = model;
  const scored: EvalModel['loglikelihood'] = async (requests, emit) => {
    for (const [i, { continuation, last }] of requests.entries())
      emit(i, {
        ...{ sum: -1, greedy: false },
        ...(last !== undefined && {
          last: { logProbabilities: Array(last).fill(-1), firstChoices: continuation.slice(-last) },
        }),
      });
  };
  const actor: EvalModel = {
    name,
    tokenizer,
    maxLength,
    fingerprint: () => 'rehearsal',
    loglikelihood: scored,
    loglikelihoodRolling: scored,
    ...(imagePlaceholder !== undefined && { imagePlaceholder }),
    ...(model.encodeTurn && { encodeTurn: (...turn) => model.encodeTurn!(...turn) }),
    ...(endTokens && { endTokens }),
    ...(model.generateUntil && {
      async generateUntil(requests, emit) {
        for (const i of requests.keys()) emit(i, { text: '', tokens: 1, ended: 'eos' });
      },
    }),
  };
  const steps = evaluate(actor, { ...options, bootstrapResamples: 2 });
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}
