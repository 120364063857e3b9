import { isJsonObject, type JsonObject } from '../../storage/json.ts';
import { Fields } from '../language/architectures/fields.ts';
import { activationOf, hiddenActOf } from '../language/architectures/llama.ts';
import { depthOf, type TowerActivation, type VisionTowerConfig, type VisionTowerOptions } from './config.ts';

const kinds: Record<string, 'clip' | 'siglip'> = {
  clip: 'clip',
  clip_vision_model: 'clip',
  siglip: 'siglip',
  siglip_vision_model: 'siglip',
};

/** What Hugging Face assumes where config.json is silent. */
const defaults = {
  clip: { patch: 32, activation: 'quick_gelu', eps: 1e-5 },
  siglip: { patch: 16, activation: 'gelu_pytorch_tanh', eps: 1e-6 },
} as const;

/** The side of a square that is written as a number or twice in a list. */
function side(fields: Fields, name: string, fallback: number): number {
  const value = fields.get(name);
  if (!Array.isArray(value)) return fields.count(name, fallback);
  const [height, width] = fields.numbers(name);
  return value.length === 2 && height === width && Number.isInteger(height) && height! > 0
    ? height!
    : fields.wrong(`"${name}" must be a square, got ${JSON.stringify(value)}`);
}

/**
 * The tower of a Hugging Face config.json: of `clip_vision_model` and `siglip_vision_model`, and of models with a `vision_config` that is one of
 * those (clip, siglip, llava; llava also says which features it takes).
 * @throws ERR_LIBMOE_CONFIG for another kind of tower, and for a setting that ours does not have
 */
export function visionConfigOf(json: JsonObject, source: string): VisionTowerOptions {
  const whole = new Fields(json, source);
  const inner = isJsonObject(json.vision_config) ? json.vision_config : undefined;
  const fields = inner ? whole.nested('vision_config') : whole;
  const type = fields.string('model_type', whole.string('model_type', ''));
  const kind =
    kinds[type] ??
    fields.wrong(
      `"model_type" ${JSON.stringify(type)} is no vision tower that can be read: known are ${Object.keys(kinds).join(', ')}`,
    );
  const { patch, activation, eps } = defaults[kind];
  const channels = fields.count('num_channels', 3);
  fields.refuse(channels !== 3, `"num_channels": ${channels}`);
  return {
    kind,
    imageSize: side(fields, 'image_size', 224),
    patchSize: side(fields, 'patch_size', patch),
    dModel: fields.count('hidden_size', 768),
    layers: fields.layers('num_hidden_layers', 12),
    heads: fields.count('num_attention_heads', 12),
    hidden: fields.count('intermediate_size', 3072),
    activation: activationOf(fields, 'hidden_act', activation) as TowerActivation,
    eps: fields.number('layer_norm_eps', eps),
    ...(inner && whole.has('vision_feature_layer') && features(whole, kind)),
  };
}

/** Which features LLaVA takes. */
function features(
  fields: Fields,
  kind: 'clip' | 'siglip',
): Pick<VisionTowerOptions, 'selectLayer' | 'selectFeature'> {
  fields.refuse(Array.isArray(fields.get('vision_feature_layer')), 'a list of "vision_feature_layer"');
  const strategy = fields.string('vision_feature_select_strategy', 'default');
  if (strategy !== 'default' && strategy !== 'full')
    fields.wrong(`"vision_feature_select_strategy" must be default or full, got ${JSON.stringify(strategy)}`);
  fields.refuse(
    kind === 'siglip' && strategy === 'default',
    '"vision_feature_select_strategy": "default", which leaves out the first patch of a tower without class token,',
  );
  return {
    selectLayer: fields.number('vision_feature_layer'),
    selectFeature: strategy === 'full' ? 'full' : 'patch',
  };
}

/** The config.json of a dense tower for other readers. It has the layers that are kept, so its features are those after the last. */
export function visionJson(config: VisionTowerConfig): JsonObject {
  const clip = config.kind === 'clip';
  return {
    architectures: [clip ? 'CLIPVisionModel' : 'SiglipVisionModel'],
    model_type: clip ? 'clip_vision_model' : 'siglip_vision_model',
    hidden_size: config.dModel,
    intermediate_size: config.hidden,
    num_hidden_layers: depthOf(config),
    num_attention_heads: config.heads,
    num_channels: 3,
    image_size: config.imageSize,
    patch_size: config.patchSize,
    hidden_act: config.activation === 'geluTanh' ? 'gelu_pytorch_tanh' : hiddenActOf(config.activation),
    layer_norm_eps: config.eps,
    attention_dropout: 0,
    ...(clip
      ? { initializer_range: 0.02, initializer_factor: 1 }
      : { vision_use_head: config.pool === 'attention' }),
  };
}
