export {
  type Architecture,
  architectures,
  type FamilyChoice,
  type FamilyNeed,
  type FileTensor,
  familyOf,
  type PublicFamily,
  publicFamilyOf,
} from './architectures/index.ts';
export type { Block } from './block.ts';
export {
  configJson,
  type LoadOptions,
  loadModel,
  readConfig,
  readModelConfig,
  type SaveOptions,
  saveModel,
  writeModelFiles,
} from './checkpoint.ts';
export {
  type FeedForwardConfig,
  type LanguageModelConfig,
  type LanguageModelOptions,
  languageModelConfigSchema,
  type MoeConfig,
  moeLayersOf,
  resolveLanguageModelConfig,
  valueDimOf,
  windowsOf,
} from './config.ts';
export { endTokens } from './end-tokens.ts';
export type { FileLayout } from './file-tensors.ts';
export {
  type GeneratedToken,
  type GenerateOptions,
  generate,
  lastLogits,
  type SamplingOptions,
  sampleToken,
  type TokenRouting,
} from './generate.ts';
export { type CachedSequences, KvCache, type KvCacheOptions } from './kv-cache.ts';
export { type LayerSelection, layerSelectionSchema, resolveLayers } from './layer-selection.ts';
export { loadLlama2c } from './llama2c.ts';
export { LanguageModel, type NewModelOptions } from './model.ts';
export { type InsertedRows, type ModelBatch, packSequences, rowsOf } from './packed-batch.ts';
export { countParameters, type ParameterReport, parameterReport, withDiversity } from './parameters.ts';
export { type MatchedNames, matchNames, takeOnly } from './partial.ts';
export { rawForward } from './raw-forward.ts';
