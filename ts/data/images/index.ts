export { type DecodedImage, decodeImage, type ImageDecodeOptions } from './decode.ts';
export { imageProcessor } from './image-processor.ts';
export type { ImageFailure } from './image-worker.ts';
export {
  type ImageCounts,
  ImagePool,
  type ImagePoolOptions,
  type PooledImage,
} from './pool.ts';
export type {
  ImageProcessor,
  ImageProcessorOptions,
} from './processor.ts';
export type { ImageRecipe, ImageReference } from './recipe.ts';
