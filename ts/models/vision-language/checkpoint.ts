import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fail } from '../../native/index.ts';
import { recoverFolder, writeFileAtomically, writeFolderAtomically } from '../../storage/atomic.ts';
import { checksumFile, verifyFolder, writeChecksums } from '../../storage/checksums.ts';
import { isJsonObject, type JsonObject, type JsonValue, readJsonObject } from '../../storage/json.ts';
import { openSafetensors, writeShardedSafetensors } from '../../storage/safetensors.ts';
import { scope, type Tensor } from '../../tensor/index.ts';
import { familyOf } from '../language/architectures/index.ts';
import {
  configText,
  dtypeName,
  type LoadOptions,
  loadModel,
  refuseForeign,
  refuseFunctions,
  resolvedFrom,
  type SaveOptions,
  storedDtype,
} from '../language/checkpoint.ts';
import { type FileLayout, fileTensorsOf, readFileTensors } from '../language/file-tensors.ts';
import { refuseForeignFolder, refusePickledWeights, refuseQuantised } from '../language/foreign-files.ts';
import type { LanguageModel } from '../language/model.ts';
import { mergeStoredAdapters } from '../language/stored-adapters.ts';
import { towerPrefixIn, towerTensors, type VisionTower } from '../vision/index.ts';
import {
  configOf,
  newVisionLanguageModel,
  resolveVisionLanguageConfig,
  type VisionLanguageConfig,
} from './config.ts';
import { formOf, llavaLayout, ownLayout } from './file-layout.ts';
import { llavaJson, llavaName, llavaOptions, lostInLlava, ownName, textConfigIn } from './hugging-face.ts';
import type { VisionLanguageModel } from './model.ts';

const specialTokens = ['bos_token_id', 'eos_token_id', 'pad_token_id'] as const;
/** As which a LLaVA tower is written: transformers 4 has these names, and later versions read them. */
const visionPrefix = 'vision_tower.vision_model.';

const namedIn = (json: JsonObject): JsonValue | undefined =>
  Array.isArray(json.architectures) ? json.architectures[0] : json.model_type;

/** Whether a checkpoint is a folder with a vision-language model; its weights are not looked at. */
export function isVisionLanguageCheckpoint(path: string): boolean {
  if (!existsSync(path) || !statSync(path).isDirectory() || !existsSync(join(path, 'config.json')))
    return false;
  const json = readJsonObject(join(path, 'config.json'), 'ERR_LIBMOE_CONFIG');
  const named = namedIn(json);
  return named === llavaName || named === ownName || named === 'llava';
}

/**
 * The configuration in a checkpoint folder of a vision-language model; of the weights nothing is read.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CHECKPOINT, ERR_LIBMOE_CONFIG, ERR_LIBMOE_UNSUPPORTED
 */
export function readVisionLanguageConfig(folder: string): { config: VisionLanguageConfig; json: JsonObject } {
  if (!existsSync(folder)) recoverFolder(folder);
  if (!existsSync(folder)) fail('ERR_LIBMOE_FILE', `no checkpoint at ${folder}`);
  refuseForeignFolder(folder);
  const source = join(folder, 'config.json');
  const json = readJsonObject(source, 'ERR_LIBMOE_CONFIG');
  if (!isVisionLanguageCheckpoint(folder))
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${source}: ${JSON.stringify(namedIn(json) ?? null)} is no vision-language model that can be read; known are ${llavaName}, ${ownName}`,
    );
  refuseQuantised(json, source);
  const own = isJsonObject(json.libmoe) ? json.libmoe.visionLanguage : undefined;
  const options = own ?? llavaOptions(json, source);
  return { config: resolvedFrom(() => resolveVisionLanguageConfig(options), source), json };
}

/** The names of what a folder holds of a model with this configuration. */
function layoutIn(folder: string, config: VisionLanguageConfig, json: JsonObject): FileLayout {
  if (namedIn(json) === ownName) return ownLayout;
  const files = openSafetensors(folder);
  const { architecture } = textConfigIn(json, join(folder, 'config.json'));
  return llavaLayout(config, architecture, {
    vision: towerPrefixIn(files, folder),
    form: formOf(files.names()),
  });
}

/**
 * Loads a vision-language model: Hugging Face's LlavaForConditionalGeneration (CLIP or SigLIP and any language model that {@link loadModel} reads), or
 * a folder that {@link saveVisionLanguageModel} wrote. Everything is checked before a weight is read.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CONFIG, ERR_LIBMOE_UNSUPPORTED, ERR_LIBMOE_CHECKPOINT naming missing, unexpected and mis-shaped tensors
 */
export async function loadVisionLanguageModel(
  folder: string,
  options: LoadOptions = {},
): Promise<VisionLanguageModel<VisionTower>> {
  const { config, json } = readVisionLanguageConfig(folder);
  if (existsSync(join(folder, checksumFile))) verifyFolder(folder);
  refusePickledWeights(folder);
  const layout = layoutIn(folder, config, json);
  const dtype = options.dtype ?? storedDtype(json);
  const model = newVisionLanguageModel(config, {
    seed: 'later',
    dtype,
    ...(options.device && { device: options.device }),
  });
  try {
    readFileTensors(layout, model.stateDict(), openSafetensors(folder), folder);
    mergeStoredAdapters(folder, model.stateDict());
  } catch (error) {
    model.dispose();
    throw error;
  }
  model.checkpoint = folder;
  model.language.checkpoint = folder;
  describeAs(model, folder, json);
  return model;
}

/** What a config.json says of the language model beside its form, which is handed on when the model is saved. */
function describeAs({ language }: VisionLanguageModel, folder: string, json: JsonObject): void {
  const text = isJsonObject(json.text_config) ? json.text_config : {};
  if (isJsonObject(json.text_config))
    language.family = textConfigIn(json, join(folder, 'config.json')).architecture.name;
  language.specialTokens = Object.fromEntries(
    specialTokens
      .filter((field) => field in json || field in text)
      .map((field) => [field, text[field] ?? json[field] ?? null]),
  );
}

/** Overwrites a model's weights with those of a checkpoint folder of the same configuration. @throws as {@link loadVisionLanguageModel} */
export function readVisionLanguageWeights(model: VisionLanguageModel<VisionTower>, folder: string): void {
  const { config, json } = readVisionLanguageConfig(folder);
  refusePickledWeights(folder);
  readFileTensors(layoutIn(folder, config, json), model.stateDict(), openSafetensors(folder), folder);
  describeAs(model, folder, json);
}

/** Loads a checkpoint of either kind: a vision-language model where it is one, else a language model. @throws as either */
export async function loadAnyModel(
  path: string,
  options: LoadOptions = {},
): Promise<LanguageModel | VisionLanguageModel<VisionTower>> {
  return isVisionLanguageCheckpoint(path) ? loadVisionLanguageModel(path, options) : loadModel(path, options);
}

/** How {@link saveVisionLanguageModel} names a model. */
function writtenAs(config: VisionLanguageConfig, family: string | undefined): 'llava' | 'own' {
  const lost = lostInLlava(config);
  if (family === ownName) return 'own';
  if (family !== undefined && family !== llavaName && family !== 'public')
    fail('ERR_LIBMOE_ARGUMENT', `no family "${family}": known are public, ${llavaName}, ${ownName}`);
  if (family !== undefined && lost.length > 0)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${llavaName} knows no model with ${lost.join('; ')}: change that, or save it as ${ownName}, which only libmoe loads`,
    );
  return lost.length > 0 ? 'own' : 'llava';
}

/** The config.json of a model. */
function jsonOf(model: VisionLanguageModel<VisionTower>, as: 'llava' | 'own'): JsonObject {
  const config = configOf(model);
  const { language, tokensPerImage } = model;
  refuseFunctions(config);
  const tokens = {
    ...Object.fromEntries(specialTokens.map((field) => [field, null])),
    ...language.specialTokens,
  };
  const dtype = dtypeName(language.dtype);
  const preferred = language.family;
  const public_ = as === 'llava' ? llavaJson(config, { tokensPerImage, preferred }) : {};
  return {
    architectures: [ownName],
    model_type: 'libmoe_llava',
    ...public_,
    ...(isJsonObject(public_.text_config) && { text_config: { ...public_.text_config, ...tokens, dtype } }),
    ...(as === 'own' && tokens),
    dtype,
    torch_dtype: dtype,
    libmoe: {
      version: 1,
      visionLanguage: config as unknown as JsonValue,
      vision: config.vision as unknown as JsonValue,
    },
  };
}

/** The tensors of a model as files hold them; they belong to the caller's scope. */
function tensorsOf(model: VisionLanguageModel<VisionTower>, as: 'llava' | 'own'): Map<string, Tensor> {
  const state = model.stateDict();
  if (as === 'own') return fileTensorsOf(ownLayout, state);
  const config = configOf(model);
  const { architecture } = familyOf(config.language, { preferred: model.language.family });
  const layout = llavaLayout(config, architecture, { vision: visionPrefix, form: 'nested' });
  const others = [...state].filter(([name]) => !name.startsWith('vision.'));
  return new Map([...towerTensors(model.vision, visionPrefix), ...fileTensorsOf(layout, others)]);
}

/** Writes config.json and the weights into `folder`, which exists: a part of a larger checkpoint. Returns the file names. */
export function writeVisionLanguageFiles(
  model: VisionLanguageModel<VisionTower>,
  folder: string,
  family?: string,
): string[] {
  const as = writtenAs(configOf(model), family);
  writeFileAtomically(join(folder, 'config.json'), configText(jsonOf(model, as)));
  return ['config.json', ...scope(() => writeShardedSafetensors(folder, tensorsOf(model, as)))];
}

/**
 * Saves a model as a folder: as Hugging Face's LlavaForConditionalGeneration where that has all of it (the tower with the layers it keeps), else under
 * our own names, which only libmoe loads. The folder appears whole or not at all.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CONFIG as saveModel does; ERR_LIBMOE_UNSUPPORTED saying what the required family lacks
 */
export async function saveVisionLanguageModel(
  model: VisionLanguageModel<VisionTower>,
  folder: string,
  { family, extra }: SaveOptions = {},
): Promise<void> {
  if (folder === '')
    fail('ERR_LIBMOE_ARGUMENT', 'saveVisionLanguageModel expects a folder, got an empty path: name one');
  const place = resolve(folder);
  refuseForeign(place);
  writtenAs(configOf(model), family);
  await writeFolderAtomically(place, async (temporary) => {
    writeVisionLanguageFiles(model, temporary, family);
    await extra?.(temporary);
    writeChecksums(temporary);
  });
}
