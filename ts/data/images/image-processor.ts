import { type ImageProcessor, type ImageProcessorOptions, processorOf } from './processor.ts';
import { imageProcessorSettings } from './processor-config.ts';

/**
 * The image processor of a Hugging Face model from its preprocessor_config.json (path or content): SigLIP, CLIP, ViT, LLaVA 1.5 and 1.6. Gives the numbers of
 * the Pillow-based processors of transformers. Throws ERR_LIBMOE_CONFIG.
 */
export function imageProcessor(config: unknown, options: ImageProcessorOptions = {}): ImageProcessor {
  return processorOf(imageProcessorSettings(config), options);
}
