export { type Architecture, architectures, type FileTensor } from './architectures/index.ts';
export type { Block } from './block.ts';
export {
  configJson,
  type LoadOptions,
  loadModel,
  readConfig,
  saveModel,
  writeModelFiles,
} from './checkpoint.ts';
export {
  type FeedForwardConfig,
  type LanguageModelConfig,
  type LanguageModelOptions,
  type LayerSelection,
  languageModelConfigSchema,
  layerSelectionSchema,
  type MoeConfig,
  moeLayersOf,
  resolveLanguageModelConfig,
  resolveLayers,
  windowsOf,
} from './config.ts';
export {
  type GeneratedToken,
  type GenerateOptions,
  generate,
  lastLogits,
  type SamplingOptions,
  sampleToken,
} from './generate.ts';
export { type CachedSequences, KvCache, type KvCacheOptions } from './kv-cache.ts';
export { loadLlama2c } from './llama2c.ts';
export { LanguageModel, type NewModelOptions } from './model.ts';
export { type ModelBatch, packSequences, rowsOf } from './packed-batch.ts';
export { countParameters, type ParameterReport, parameterReport } from './parameters.ts';
export { type MatchedNames, matchNames, takeOnly } from './partial.ts';
