import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { writeFileAtomically, writeFolderAtomically } from '../../storage/atomic.ts';
import { checksumFile, verifyFolder, writeChecksums } from '../../storage/checksums.ts';
import { isJsonObject, type JsonObject, type JsonValue, readJsonObject } from '../../storage/json.ts';
import { openSafetensors, writeShardedSafetensors } from '../../storage/safetensors.ts';
import { scope } from '../../tensor/index.ts';
import {
  configText,
  dtypeName,
  type LoadOptions,
  refuseForeign,
  refuseFunctions,
  resolvedFrom,
  storedDtype,
} from '../language/checkpoint.ts';
import { refuseForeignFolder, refusePickledWeights } from '../language/foreign-files.ts';
import { mergeStoredAdapters } from '../language/stored-adapters.ts';
import { resolveVisionTowerConfig, type VisionTowerConfig, type VisionTowerOptions } from './config.ts';
import { readTowerTensors, towerPrefixIn, towerTensors } from './file-tensors.ts';
import { visionConfigOf, visionJson } from './hugging-face.ts';
import { VisionTower } from './tower.ts';

/** What is taken otherwise than the files say: which features, scales, resolution, pool. */
export type TowerChanges = Partial<
  Pick<VisionTowerOptions, 'selectLayer' | 'selectFeature' | 'scales' | 'resolution' | 'pool' | 'compat'>
>;

/** Without dense feed-forward layers to fall back to, these names stand for a tower with experts. */
const ownName = 'LibMoeVisionTower';

/**
 * The configuration of the tower in a checkpoint folder: one of ours, a Hugging Face tower, or a model with a `vision_config`.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CHECKPOINT, ERR_LIBMOE_CONFIG
 */
export function readVisionTowerConfig(folder: string, changes: TowerChanges = {}): VisionTowerConfig {
  return configIn(folder, changes).config;
}

function configIn(folder: string, changes: TowerChanges): { config: VisionTowerConfig; json: JsonObject } {
  const source = join(folder, 'config.json');
  if (existsSync(folder)) refuseForeignFolder(folder);
  const json = readJsonObject(source, 'ERR_LIBMOE_CONFIG');
  const own = isJsonObject(json.libmoe) && isJsonObject(json.libmoe.vision) ? json.libmoe.vision : undefined;
  const options = own ?? visionConfigOf(json, source);
  return { config: resolvedFrom(() => resolveVisionTowerConfig({ ...options, ...changes }), source), json };
}

/**
 * Loads a tower: a folder that {@link saveVisionTower} wrote, a Hugging Face tower, or the tower of a Hugging Face model that has one among other
 * parts (clip, siglip, llava), with adapters that lie beside it in the folder put in. Layers whose output is not used are left in the files.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CONFIG, ERR_LIBMOE_UNSUPPORTED (weights in a pickle), ERR_LIBMOE_CHECKPOINT naming missing, unexpected and
 *   mis-shaped tensors
 */
export async function loadVisionTower(
  folder: string,
  options: LoadOptions & { changes?: TowerChanges } = {},
): Promise<VisionTower> {
  const { config, json } = configIn(folder, options.changes ?? {});
  if (existsSync(join(folder, checksumFile))) verifyFolder(folder);
  refusePickledWeights(folder);
  const files = openSafetensors(folder);
  const prefix = config.moe ? '' : towerPrefixIn(files, folder);
  const dtype = options.dtype ?? storedDtype(json);
  const tower = new VisionTower(config, { seed: 'later', dtype, device: options.device });
  try {
    readTowerTensors(tower, files, folder, prefix);
    mergeStoredAdapters(folder, tower.stateDict(), 'vision.');
  } catch (error) {
    tower.dispose();
    throw error;
  }
  tower.checkpoint = folder;
  return tower;
}

/**
 * Saves a tower as a folder: a dense one as transformers' CLIPVisionModel or SiglipVisionModel with the layers that it keeps, one with experts under
 * our own names, which only libmoe loads. The folder appears whole or not at all.
 * @throws ERR_LIBMOE_FILE for a folder with files that libmoe did not write, ERR_LIBMOE_CONFIG for options that a file cannot hold
 */
export async function saveVisionTower(tower: VisionTower, folder: string): Promise<void> {
  const place = resolve(folder);
  refuseForeign(place);
  refuseFunctions(tower.config);
  await writeFolderAtomically(place, async (temporary) => {
    writeVisionTowerFiles(tower, temporary);
    writeChecksums(temporary);
  });
}

/** Writes config.json and the weights into `folder`, which exists: a part of a larger checkpoint. */
export function writeVisionTowerFiles(tower: VisionTower, folder: string): void {
  const { config } = tower;
  refuseFunctions(config);
  const json: JsonObject = {
    ...visionJson(config),
    ...(config.moe && { architectures: [ownName], model_type: 'libmoe_vision' }),
    dtype: dtypeName(tower.dtype),
    torch_dtype: dtypeName(tower.dtype),
    libmoe: { version: 1, vision: config as unknown as JsonValue },
  };
  writeFileAtomically(join(folder, 'config.json'), configText(json));
  scope(() => writeShardedSafetensors(folder, towerTensors(tower, config.moe ? '' : 'vision_model.')));
}
