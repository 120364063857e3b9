export {
  isVisionLanguageCheckpoint,
  loadAnyModel,
  loadVisionLanguageModel,
  readVisionLanguageConfig,
  readVisionLanguageWeights,
  saveVisionLanguageModel,
  writeVisionLanguageFiles,
} from './checkpoint.ts';
export {
  configOf,
  newVisionLanguageModel,
  resolveVisionLanguageConfig,
  type VisionLanguageConfig,
  type VisionLanguageOptions,
  visionLanguageConfigSchema,
} from './config.ts';
export { generateWithImages, type ImagePrompt } from './generate.ts';
export { lostInLlava } from './hugging-face.ts';
export {
  type BatchImages,
  type ExpandedPlaceholders,
  expandPlaceholders,
  type ImagePlace,
  rowsOfImages,
} from './image-rows.ts';
export {
  type JoinOptions,
  type VisionLanguageInput,
  VisionLanguageModel,
  type VisionLanguageParts,
} from './model.ts';
export {
  type ProjectorParameterReport,
  projectorMoeOf,
  projectorParameterReport,
  projectorWidth,
} from './parameters.ts';
export { maskOf, Projector, type ProjectorPlace, pixelShuffle } from './projector.ts';
export {
  linearLayersOf,
  type ProjectorConfig,
  type ProjectorOptions,
  projectorMoeSchema,
  projectorSchema,
  resolveProjectorConfig,
} from './projector-config.ts';
export { type RawImages, rawForwardWithImages } from './raw-forward.ts';
export type { ImageTower } from './tower.ts';
