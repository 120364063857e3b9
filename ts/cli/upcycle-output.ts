import type { PublicFamily } from '../models/language/index.ts';
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

/** As what a checkpoint is written, and which family of transformers has its model or is the nearest. */
export interface WrittenAs {
  family: string;
  transformers: PublicFamily;
}

/** Who can load the checkpoint. */
function loaders({ family, transformers }: WrittenAs): string {
  if (!family.startsWith('LibMoe')) return `transformers loads it as ${family}`;
  const nearest = transformers.family;
  return transformers.lost.length > 0
    ? `only libmoe loads it: the nearest architecture of transformers, ${nearest}, knows no model with ${transformers.lost.join('; ')}`
    : `only libmoe loads it, as --family says; transformers has it as ${nearest}`;
}

/** What people are told of an upcycling. */
export function upcycleText(
  report: UpcycleReport,
  { text, tokens, dense, upcycled }: StepZero,
  written: WrittenAs,
): string {
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
    loaders(written),
    '',
    `loss before training, nats per token, on ${tokens} tokens of ${text}: dense ${dense.toFixed(4)}, upcycled ${upcycled.toFixed(4)}`,
    ...(report.unlikeDense.length > 0
      ? ['The new model does not start as the dense one:', ...report.unlikeDense.map((why) => `  ${why}`)]
      : []),
  ];
  return lines.join('\n');
}
