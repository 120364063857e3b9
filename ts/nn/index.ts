export { type Adapters, addLowRank, lowRankPlaces } from './adapters.ts';
export {
  type AttentionStep,
  type LayerCache,
  SelfAttention,
  type SelfAttentionOptions,
} from './attention.ts';
export { Embedding } from './embedding.ts';
export {
  type ActivationName,
  activate,
  activationNames,
  FeedForward,
  type FeedForwardOptions,
} from './feed-forward.ts';
export {
  constant,
  type Initialiser,
  type InitialValues,
  initialise,
  kaimingUniform,
  normal,
  onesInitialiser,
  partOf,
  type RandomSource,
  rescaledTruncatedNormal,
  truncatedNormal,
  uniformWithin,
  zerosInitialiser,
} from './initialisers.ts';
export { LatentAttention, type LatentAttentionOptions } from './latent-attention.ts';
export { type LayerOptions, Linear } from './linear.ts';
export { LowRank, type LowRankOptions } from './low-rank.ts';
export { buffer, type LoadReport, Module } from './module.ts';
export { LayerNorm, type Norm, newNorm, RmsNorm } from './norm.ts';
export { orthogonal } from './orthogonal.ts';
export { Rotary, type RotaryOptions } from './rotary.ts';
export {
  latentScoreFactor,
  type RotaryFrequencies,
  type RotaryScaling,
  rotaryFrequencies,
  rotaryScalingSchema,
} from './rotary-scaling.ts';
export { byScheme, equaliseRows, type InitScheme, initSchemes, withEqualRows } from './schemes.ts';
