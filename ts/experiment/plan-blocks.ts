import {
  type FeedForwardConfig,
  type LanguageModelConfig,
  moeLayersOf,
  valueDimOf,
  withDiversity,
} from '../models/language/index.ts';
import type { RouterOnProbe } from './plan-router.ts';

/** What the memory of transformer blocks depends on, of a language model or of a tower. */
export type BlockSizes = Pick<
  LanguageModelConfig,
  'dModel' | 'layers' | 'heads' | 'keyValueHeads' | 'headDim' | 'norm' | 'feedForward' | 'moe'
> &
  Partial<Pick<LanguageModelConfig, 'qkNorm' | 'attention'>>;

/** Bytes of a number. */
export const f32 = 4;

/** What the tape keeps of one token in one dense feed-forward layer: what comes out of the first matrix; the rest is computed again. */
export const feedForwardKept = ({ hidden, gated }: Pick<FeedForwardConfig, 'hidden' | 'gated'>): number =>
  hidden * (gated ? 2 : 1);

/** Bytes that the tape keeps of one token in one layer's attention; its normalised input is computed again. */
function attentionKept(config: BlockSizes, element: number): number {
  const { heads, keyValueHeads, headDim, qkNorm, attention } = config;
  const valueDim = valueDimOf(config);
  const queryAndOutput = heads * (headDim + valueDim);
  const keyAndValue = keyValueHeads * (headDim + valueDim);
  const normed = qkNorm ? (heads + keyValueHeads) * headDim : 0;
  // Latents before their norms.
  const latents = (attention?.queryRank ?? 0) + (attention?.keyValueRank ?? 0);
  const statistics = attention === undefined ? 0 : attention.queryRank === undefined ? f32 : 2 * f32;
  return element * (normed + latents + queryAndOutput + keyAndValue) + statistics + heads * f32;
}

/** What the tape keeps of one token for the diversity loss, beside the experts' second pass: a copy per choice, answers, directions, angles. */
function diversityKept(dModel: number, topK: number, element: number): number {
  const answers = element + (element === f32 ? 0 : f32);
  return topK * dModel * (element + answers + f32) + 3 * topK * topK * f32;
}

/** Bytes that the tape keeps of one token in each block, without the residual stream that enters it. */
export function blocksKept(config: BlockSizes, element: number, router: RouterOnProbe | undefined): number[] {
  const { dModel, norm, moe } = config;
  const statistics = norm === 'layernorm' ? 2 * f32 : f32;
  const attention = attentionKept(config, element) + statistics;
  const between = element * dModel + statistics;
  const dense = element * feedForwardKept(config.feedForward);
  const moeLayers = moeLayersOf(config);
  let mixture = 0;
  if (moe && router) {
    const { bytesPerToken, choicesPerToken } = router;
    const { hidden, gated } = moe.expert;
    const shared = moe.shared ? feedForwardKept({ ...moe.expert, ...moe.shared }) : 0;
    const rows = choicesPerToken * ((gated ? 2 : 1) * hidden * element + 3 * f32);
    const again = withDiversity(moe) ? rows + diversityKept(dModel, moe.topK, element) : 0;
    mixture = bytesPerToken + rows + element * shared + again;
  }
  return Array.from(
    { length: config.layers },
    (_, layer) => attention + between + (moeLayers.includes(layer) ? mixture : dense),
  );
}

/** Numbers per token that a block holds until it is computed and the tape does not keep: both normalised streams, the activated layer. */
export function forwardOnly(config: BlockSizes): number[] {
  const moeLayers = moeLayersOf(config);
  return Array.from(
    { length: config.layers },
    (_, layer) => 2 * config.dModel + (moeLayers.includes(layer) ? 0 : config.feedForward.hidden),
  );
}

/**
 * Numbers per token that backward of each block holds beside what was kept. With adapters of first matrices, the gradient of a layer's answer is there three times: for
 * the layer, and for the adapter before and after its factor.
 */
export function working(config: BlockSizes, besideUp: boolean): number[] {
  const { dModel, heads, keyValueHeads, headDim, feedForward, layers } = config;
  const attention = (heads + keyValueHeads) * (headDim + valueDimOf(config));
  const moeLayers = moeLayersOf(config);
  return Array.from({ length: layers }, (_, layer) => {
    const answer = feedForward.gated ? 2 : 1;
    const hidden = moeLayers.includes(layer) ? 0 : (besideUp ? 3 * answer : 1 + answer) * feedForward.hidden;
    return 2 * dModel + Math.max(attention, hidden);
  });
}

/** As native/cpu/loss.cpp cuts it. */
export function logitsChunk(tokens: number, vocabularySize: number): number {
  const rows = Math.floor(2 ** 23 / vocabularySize / 16) * 16;
  return Math.min(tokens, Math.min(1024, Math.max(64, rows))) * vocabularySize * f32;
}
