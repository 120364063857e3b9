export type { UpcycleReport } from './copies.ts';
export { addExpertNoise, type ExpertNoise, expertNoiseSchema, type NoiseReport } from './expert-noise.ts';
export { type UpcycleOptions, upcycledConfig, upcycleOptionsSchema } from './options.ts';
export { meanLoss, meanLossWithImage, sampleText, textSequences } from './step-zero.ts';
export { whyUnlikeDense } from './unlike-dense.ts';
export { upcycle, upcycleWithReport } from './upcycle.ts';
export {
  type UpcycledPart,
  upcycledParts,
  upcycledVisionLanguageConfig,
  upcycleVisionLanguageWithReport,
  type VisionLanguageUpcycleOptions,
  type VisionLanguageUpcycleReport,
  vlmUpcycleOptionsSchema,
} from './vision-language.ts';
