import type { NoiseReport, UpcycleReport } from '../upcycling/index.ts';
import { table } from './output.ts';

/** The losses of both models before any training, in nats per token. */
export interface StepZero {
  /** What they were measured on. */
  text: string;
  tokens: number;
  dense: number;
  upcycled: number;
}

const noise = ({ changed, experts, units, hidden }: NoiseReport): string =>
  `expert noise: ${changed} of ${experts} experts per layer${units > 0 ? `, ${units} of ${hidden} hidden units drawn anew` : ''}`;

/** What people are told of an upcycling. */
export function upcycleText(report: UpcycleReport, { text, tokens, dense, upcycled }: StepZero): string {
  const { before, after } = report.parameters;
  const lines = [
    table(
      ['copied into every expert', 'as', 'copies'],
      report.replicated.map((r) => [r.from, r.to, r.copies]),
    ),
    '',
    `copied unchanged: ${report.copied.length} tensors; new: ${report.initialised.join(', ') || 'none'}`,
    ...(report.leftOut.length > 0 ? [`not taken over, drawn anew: ${report.leftOut.join(', ')}`] : []),
    ...(report.expertNoise ? [noise(report.expertNoise)] : []),
    `parameters: ${before.toLocaleString('en')} → ${after.toLocaleString('en')}`,
    '',
    `loss before training, nats per token, on ${tokens} tokens of ${text}: dense ${dense.toFixed(4)}, upcycled ${upcycled.toFixed(4)}`,
    ...(report.unlikeDense.length > 0
      ? ['The new model does not start as the dense one:', ...report.unlikeDense.map((why) => `  ${why}`)]
      : []),
  ];
  return lines.join('\n');
}
