import { fail } from '../../native/index.ts';
import type { Safetensors } from '../../storage/safetensors.ts';
import { ones, type Tensor, zeros } from '../../tensor/index.ts';
import type { FileTensor } from '../language/architectures/index.ts';
import { type FileLayout, fileTensorsOf, readFileTensors } from '../language/file-tensors.ts';
import { depthOf, type VisionTowerConfig } from './config.ts';
import type { VisionTower } from './tower.ts';

const parts: Record<string, string> = {
  classEmbedding: 'embeddings.class_embedding',
  patchEmbedding: 'embeddings.patch_embedding',
  positionEmbedding: 'embeddings.position_embedding',
  preNorm: 'pre_layrnorm', // spelt so in CLIP's files
  postNorm: 'post_layernorm',
  'head.probe': 'head.probe',
  'head.output': 'head.attention.out_proj',
  'head.norm': 'head.layernorm',
};
const blockParts: Record<string, string> = {
  attentionNorm: 'layer_norm1',
  feedForwardNorm: 'layer_norm2',
  'attention.query': 'self_attn.q_proj',
  'attention.key': 'self_attn.k_proj',
  'attention.value': 'self_attn.v_proj',
  'attention.output': 'self_attn.out_proj',
};
const feedForward: Record<string, string> = {
  'feedForward.up': 'mlp.fc1.weight',
  'feedForward.upBias': 'mlp.fc1.bias',
  'feedForward.down': 'mlp.fc2.weight',
  'feedForward.downBias': 'mlp.fc2.bias',
};
const thirds = ['query', 'key', 'value'];

/** The file's name of a parameter outside the prefix, if Hugging Face has it. */
function named(name: string): string | undefined {
  const [, layer, rest = ''] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  const place = layer === undefined ? name : rest;
  const [, part = place, field] = /^(.+)\.(weight|bias)$/.exec(place) ?? [];
  const prefix = layer === undefined ? '' : `encoder.layers.${layer}.`;
  const known = (layer === undefined ? parts : blockParts)[part];
  if (known !== undefined) return prefix + (field === undefined ? known : `${known}.${field}`);
  const [, head = '', inner = place] = /^(head\.)?(feedForward\..+)$/.exec(place) ?? [];
  const dense = feedForward[inner];
  return dense === undefined ? undefined : `${prefix}${head}${dense}`;
}

/**
 * Where the parameters of a dense tower lie in Hugging Face's files of CLIP and SigLIP.
 * @param prefix what all names begin with: `vision_model.`, `vision_tower.vision_model.` in LLaVA
 */
export function towerFileTensors(
  config: VisionTowerConfig,
  prefix: string,
): (name: string, shape: readonly number[]) => FileTensor[] {
  const { dModel, patchSize } = config;
  return (name, shape) => {
    const [, third = '', field] = /^head\.(query|key|value)\.(weight|bias)$/.exec(name) ?? [];
    if (field !== undefined) {
      const from = thirds.indexOf(third) * dModel;
      const whole = [3 * dModel, ...shape.slice(1)];
      return [
        { name: `${prefix}head.attention.in_proj_${field}`, shape: whole, rows: [from, from + dModel] },
      ];
    }
    const file = named(name);
    if (file === undefined)
      return fail('ERR_LIBMOE_CHECKPOINT', `Hugging Face's towers have no place for the parameter "${name}"`);
    if (name === 'patchEmbedding.weight')
      return [{ name: prefix + file, shape: [dModel, 3, patchSize, patchSize] }];
    return [{ name: prefix + file, shape: name === 'head.probe' ? [1, 1, dModel] : shape }];
  };
}

/** A tower in files: in Hugging Face's names when it is dense, in its own when it has experts, which no family of theirs has. */
export function towerLayout(config: VisionTowerConfig, prefix: string): FileLayout {
  if (config.moe)
    return { fileTensors: (name, shape) => [{ name: prefix + name, shape }], ignorable: () => false };
  const depth = depthOf(config);
  return {
    fileTensors: towerFileTensors(config, prefix),
    ignorable(name) {
      if (!name.startsWith(prefix)) return true;
      const rest = name.slice(prefix.length);
      const layer = /^encoder\.layers\.(\d+)\./.exec(rest)?.[1];
      if (layer !== undefined) return Number(layer) >= depth;
      return (
        rest === 'embeddings.position_ids' ||
        (config.pool === undefined && rest.startsWith('post_layernorm.')) ||
        (config.pool !== 'attention' && rest.startsWith('head.'))
      );
    },
  };
}

/** What the names of a dense tower in these files begin with. @throws ERR_LIBMOE_CHECKPOINT where there is none */
export function towerPrefixIn(files: Safetensors, path: string): string {
  const first = 'embeddings.patch_embedding.weight';
  const found = files.names().find((name) => name === first || name.endsWith(`.${first}`));
  return found === undefined
    ? fail('ERR_LIBMOE_CHECKPOINT', `${path} holds no vision tower: no tensor is called …${first}`)
    : found.slice(0, -first.length);
}

/** Fills a tower with what files hold of it. @throws ERR_LIBMOE_CHECKPOINT naming missing, unexpected and mis-shaped tensors */
export function readTowerTensors(tower: VisionTower, files: Safetensors, path: string, prefix: string): void {
  readFileTensors(towerLayout(tower.config, prefix), tower.stateDict(), files, path);
}

/**
 * The tensors of a tower as files hold it, by file name; they belong to the caller's scope. A last norm that a dense tower has no use for is written
 * as one that changes nothing but scale, since Hugging Face's models have it.
 */
export function towerTensors(tower: VisionTower, prefix: string): Map<string, Tensor> {
  const { config, dtype } = tower;
  const tensors = fileTensorsOf(towerLayout(config, prefix), tower.stateDict());
  if (!config.moe && config.pool === undefined) {
    tensors.set(`${prefix}post_layernorm.weight`, ones([config.dModel], { dtype, device: 'cpu' }));
    tensors.set(`${prefix}post_layernorm.bias`, zeros([config.dModel], { dtype, device: 'cpu' }));
  }
  return tensors;
}
