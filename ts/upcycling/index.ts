export { addExpertNoise, type ExpertNoise, expertNoiseSchema, type NoiseReport } from './expert-noise.ts';
export { type UpcycleOptions, upcycledConfig, upcycleOptionsSchema } from './options.ts';
export { meanLoss, sampleText, textSequences } from './step-zero.ts';
export { whyUnlikeDense } from './unlike-dense.ts';
export { type UpcycleReport, upcycle, upcycleWithReport } from './upcycle.ts';
