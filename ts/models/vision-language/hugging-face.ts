import { isJsonObject, type JsonObject } from '../../storage/json.ts';
import { Fields } from '../language/architectures/fields.ts';
import {
  type Architecture,
  architectureOf,
  familyOf,
  publicFamilyOf,
} from '../language/architectures/index.ts';
import { activationOf, hiddenActOf, knownActivation } from '../language/architectures/llama.ts';
import { lacking } from '../language/architectures/needs.ts';
import { visionConfigOf, visionJson } from '../vision/index.ts';
import type { VisionLanguageConfig, VisionLanguageOptions } from './config.ts';

/** Name and type of Hugging Face's LLaVA models. */
export const llavaName = 'LlavaForConditionalGeneration';
/** Name of models that only libmoe loads. */
export const ownName = 'LibMoeForConditionalGeneration';

/** What transformers assumes of a `text_config` that is silent, as those of the first LLaVA checkpoints are. */
const textDefaults: Record<string, JsonObject> = {
  llama: {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
  },
  mistral: {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
  },
};

/** The `text_config` of a LLaVA config.json with what it leaves to defaults, and the family it is of. @throws ERR_LIBMOE_UNSUPPORTED */
export function textConfigIn(
  json: JsonObject,
  source: string,
): { text: JsonObject; architecture: Architecture } {
  const given = isJsonObject(json.text_config) ? json.text_config : {};
  const type = typeof given.model_type === 'string' ? given.model_type : 'llama';
  const { architectures: _, ...fields } = given;
  const tied = fields.tie_word_embeddings ?? json.tie_word_embeddings;
  const text: JsonObject = {
    ...textDefaults[type],
    ...fields,
    model_type: type,
    ...(typeof tied === 'boolean' && { tie_word_embeddings: tied }),
  };
  return { text, architecture: architectureOf(text, `${source}: text_config`) };
}

/** Our configuration of a LLaVA config.json. @throws ERR_LIBMOE_CONFIG for a setting that ours does not have, ERR_LIBMOE_UNSUPPORTED */
export function llavaOptions(json: JsonObject, source: string): VisionLanguageOptions {
  const fields = new Fields(json, source);
  const { text, architecture } = textConfigIn(json, source);
  const features = { vision_feature_layer: -2, vision_feature_select_strategy: 'default' };
  return {
    vision: visionConfigOf({ ...features, ...json }, source),
    projector: {
      type: 'mlp2x_gelu',
      activation: activationOf(fields, 'projector_hidden_act', 'gelu') as 'gelu',
      bias: fields.boolean('multimodal_projector_bias', true),
    },
    language: architecture.read(text, `${source}: text_config`),
    imageTokenId: fields.number('image_token_index', fields.number('image_token_id', 32000)),
  };
}

/** What of a model Hugging Face's LLaVA lacks, in words that follow "a model with"; empty when it has all of it. */
export function lostInLlava({ vision, projector, language, imageTokenId }: VisionLanguageConfig): string[] {
  const { type, activation, pixelShuffle } = projector;
  return [
    ...lacking([
      [vision.moe === undefined, 'a mixture of experts in the vision tower'],
      [vision.scales.join() === '1', `the scales [${vision.scales.join(', ')}]`],
      [vision.resolution === vision.imageSize, 'positions interpolated to another resolution'],
      [vision.pool === undefined, `pool "${vision.pool}"`],
      [vision.compat === 'fixed', 'a tower of compat "libmoe"'],
      [type === 'mlp2x_gelu', `a projector "${type}"`],
      [pixelShuffle === 1, `pixelShuffle ${pixelShuffle}`],
      // transformers looks the token up before it puts the image in its place.
      [
        imageTokenId < language.vocabularySize,
        `the image token ${imageTokenId} outside the ${language.vocabularySize} ids of the vocabulary (train with a tokenizer that has "<image>")`,
      ],
      knownActivation(activation),
    ]),
    ...publicFamilyOf(language).lost,
  ];
}

/**
 * The config.json of a model that LLaVA has all of, without what our own reader takes.
 * @param preferred family of the language model that comes first among those that have it
 */
export function llavaJson(
  config: VisionLanguageConfig,
  { tokensPerImage, preferred }: { tokensPerImage: number; preferred?: string | undefined },
): JsonObject {
  const { vision, projector, language, imageTokenId } = config;
  const { architecture, fields } = familyOf(language, { preferred });
  const classToken = vision.kind === 'clip' && vision.selectFeature === 'patch';
  return {
    architectures: [llavaName],
    model_type: 'llava',
    vision_config: visionJson(vision),
    text_config: { architectures: [architecture.name], model_type: architecture.modelType, ...fields },
    image_token_index: imageTokenId,
    image_seq_length: tokensPerImage,
    // The tower ends with the layer whose output is taken.
    vision_feature_layer: -1,
    vision_feature_select_strategy: classToken ? 'default' : 'full',
    projector_hidden_act: hiddenActOf(projector.activation),
    multimodal_projector_bias: projector.bias,
    tie_word_embeddings: language.tieEmbeddings,
  };
}
