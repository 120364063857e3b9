import type { JudgeClient } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { log } from './output.ts';

/** The options `--judge` and `--judge-model`. */
export interface JudgeChoice {
  judge?: string;
  judgeModel?: string;
}

/** Their flags and descriptions. */
export const judgeOptions: readonly (readonly [flags: string, description: string])[] = [
  ['--judge <url>', 'for tasks that take one: an OpenAI-compatible address; the key is OPENAI_API_KEY'],
  ['--judge-model <name>', 'its model'],
];

/** @throws ERR_LIBMOE_ARGUMENT for a judge without a model */
export function checkJudge({ judge, judgeModel }: JudgeChoice): void {
  if (judge !== undefined && judgeModel === undefined)
    fail('ERR_LIBMOE_ARGUMENT', '--judge expects --judge-model too, the name of the model to ask');
}

/**
 * The judge that a command names, if any.
 * @param cache folder of what it has answered
 */
export async function openJudge(
  { judge: url, judgeModel: model }: JudgeChoice,
  cache: string | undefined,
  signal: AbortSignal,
): Promise<{ judge?: JudgeClient }> {
  if (url === undefined || model === undefined) return {};
  const { openAiJudge } = await import('../evaluation/index.ts');
  return { judge: openAiJudge({ url, model, signal, ...(cache !== undefined && { cache }) }) };
}

/** Says what a judge did not answer, and why. */
export function reportJudge(judge: JudgeClient | undefined): void {
  if (judge !== undefined && judge.failed > 0)
    log(
      `the judge ${judge.model} left ${judge.failed} questions unanswered, the last one because: ${judge.lastError}; the same command asks them again`,
    );
}
