export { AttentionPool, type AttentionPoolOptions } from './attention-pool.ts';
export type { VisionBlock } from './block.ts';
export {
  loadVisionTower,
  readVisionTowerConfig,
  saveVisionTower,
  type TowerChanges,
  writeVisionTowerFiles,
} from './checkpoint.ts';
export {
  depthOf,
  resolveVisionTowerConfig,
  type TowerActivation,
  type TowerLayers,
  tokensPerImageOf,
  type VisionTowerConfig,
  type VisionTowerOptions,
  visionMoeLayersOf,
  visionTowerConfigSchema,
} from './config.ts';
export { imageTextLogits, sigmoidContrastiveLoss } from './contrastive.ts';
export {
  readTowerTensors,
  towerFileTensors,
  towerLayout,
  towerPrefixIn,
  towerTensors,
} from './file-tensors.ts';
export { visionConfigOf, visionJson } from './hugging-face.ts';
export { ImageTextModel, type ImageTextOptions } from './image-text.ts';
export { type TowerParameterReport, towerParameterReport } from './parameters.ts';
export { type ImagesOptions, newVisionTower, VisionTower } from './tower.ts';
