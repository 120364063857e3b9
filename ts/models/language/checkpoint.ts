import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { codeOf, fail } from '../../native/index.ts';
import { recoverFolder, writeFileAtomically, writeFolderAtomically } from '../../storage/atomic.ts';
import { checksumFile, verifyFolder, writeChecksums } from '../../storage/checksums.ts';
import { isJsonObject, type JsonObject, type JsonValue, readJsonObject } from '../../storage/json.ts';
import { openSafetensors, writeShardedSafetensors } from '../../storage/safetensors.ts';
import { type DeviceName, type Dtype, scope } from '../../tensor/index.ts';
import { type Architecture, architectureOf, familyOf } from './architectures/index.ts';
import { type LanguageModelConfig, resolveLanguageModelConfig } from './config.ts';
import { fileTensorsOf, layoutOf, readFileTensors } from './file-tensors.ts';
import {
  refuseForeignFile,
  refuseForeignFolder,
  refusePickledWeights,
  refuseQuantised,
} from './foreign-files.ts';
import { loadLlama2c, readLlama2cConfig } from './llama2c.ts';
import { LanguageModel } from './model.ts';
import { mergeStoredAdapters } from './stored-adapters.ts';

/** Where and in which dtype a model is loaded. */
export interface LoadOptions {
  device?: DeviceName;
  /** Default: the dtype that config.json names if it is f32, bf16 or f64, else f32. */
  dtype?: Dtype;
}

const dtypeNames: Partial<Record<Dtype, string>> = { f32: 'float32', bf16: 'bfloat16', f64: 'float64' };
/** What config.json calls a dtype. */
export const dtypeName = (dtype: Dtype): string => dtypeNames[dtype] ?? 'float32';

/** The configuration in a checkpoint folder, and the family of its files. @throws ERR_LIBMOE_FILE, _CHECKPOINT, _CONFIG, _UNSUPPORTED */
export function readConfig(folder: string): {
  config: LanguageModelConfig;
  architecture: Architecture;
  json: JsonObject;
} {
  const source = join(folder, 'config.json');
  if (!existsSync(folder)) fail('ERR_LIBMOE_FILE', `no checkpoint at ${folder}`);
  refuseForeignFolder(folder);
  const json = readJsonObject(source, 'ERR_LIBMOE_CONFIG');
  const architecture = architectureOf(json, source);
  refuseQuantised(json, source, architecture.quantisations);
  const own = isJsonObject(json.libmoe) ? json.libmoe.model : undefined;
  const options = own ?? architecture.read(json, source);
  const config = resolvedFrom(() => resolveLanguageModelConfig(options), source);
  return { config, architecture, json };
}

/** What `resolve` gives; its errors, which name what is wrong, name the file too. */
export function resolvedFrom<T>(resolve: () => T, source: string): T {
  try {
    return resolve();
  } catch (error) {
    const code = codeOf(error);
    if (code === undefined) throw error;
    return fail(code, `${source}: ${(error as Error).message.replace(`${code}: `, '')}`, error);
  }
}

/**
 * The configuration of what {@link loadModel} loads; of the weights nothing is read.
 * @throws as {@link readConfig}, and ERR_LIBMOE_CHECKPOINT for a file that is no llama2.c checkpoint
 */
export function readModelConfig(path: string): LanguageModelConfig {
  return isFile(path) ? readLlama2cConfig(path) : readConfig(path).config;
}

/** Whether a checkpoint is a llama2.c file, not a folder. @throws ERR_LIBMOE_FILE when there is none, and for a foreign file what it is */
function isFile(path: string): boolean {
  if (!existsSync(path)) recoverFolder(path);
  if (!existsSync(path)) fail('ERR_LIBMOE_FILE', `no checkpoint at ${path}`);
  if (statSync(path).isDirectory()) return false;
  refuseForeignFile(path);
  return true;
}

/**
 * Loads a language model: a Hugging Face folder, one of ours, or a llama2.c `.bin` file. Everything is checked before a weight is read.
 * @throws ERR_LIBMOE_FILE for no such path, ERR_LIBMOE_CONFIG, ERR_LIBMOE_UNSUPPORTED (another architecture, quantised weights, a pickle, which
 *   is never opened), or ERR_LIBMOE_CHECKPOINT naming missing files, and missing, unexpected and mis-shaped tensors
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<LanguageModel> {
  if (isFile(path)) return loadLlama2c(path, options);
  if (existsSync(join(path, checksumFile))) verifyFolder(path);
  refusePickledWeights(path);
  const { config, architecture, json } = readConfig(path);
  const files = openSafetensors(path);
  const dtype = options.dtype ?? storedDtype(json);
  const model = new LanguageModel(config, { seed: 'later', dtype, device: options.device });
  try {
    readFileTensors(layoutOf(architecture, config), model.stateDict(), files, path);
    mergeStoredAdapters(path, model.stateDict());
  } catch (error) {
    model.dispose();
    throw error;
  }
  model.checkpoint = path;
  describeAs(model, architecture, json);
  return model;
}

/** What a config.json says of a model beside its form, which is handed on when the model is saved. */
function describeAs(model: LanguageModel, architecture: Architecture, json: JsonObject): void {
  model.family = architecture.name;
  const text = isJsonObject(json.text_config) ? json.text_config : {};
  model.specialTokens = Object.fromEntries(
    specialTokenFields
      .filter((field) => field in json || field in text)
      .map((field) => [field, json[field] ?? text[field] ?? null]),
  );
}

/** Overwrites a model's weights with those of a checkpoint folder of the same configuration. @throws as {@link loadModel} */
export function readModelWeights(model: LanguageModel, folder: string): void {
  const { architecture, json } = readConfig(folder);
  refusePickledWeights(folder);
  const layout = layoutOf(architecture, model.config);
  readFileTensors(layout, model.stateDict(), openSafetensors(folder), folder);
  describeAs(model, architecture, json);
}

/**
 * In config.json or, of a text model among others, in its `text_config`. Written even when unknown: families have defaults for them, which may lie
 * outside the vocabulary.
 */
const specialTokenFields = ['bos_token_id', 'eos_token_id', 'pad_token_id'] as const;

/** The dtype that config.json names; f32 for one that models are not computed in. */
export function storedDtype(json: JsonObject): Dtype {
  const name = json.dtype ?? json.torch_dtype;
  if (name === dtypeNames.f64) return 'f64';
  return name === dtypeNames.bf16 ? 'bf16' : 'f32';
}

/** The path of the first function in a value, which JSON would drop without a word. */
function functionIn(value: unknown, path: string): string | undefined {
  if (typeof value === 'function') return path;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const found = functionIn(item, path === '' ? key : `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Throws ERR_LIBMOE_CONFIG for a configuration that JSON cannot hold. */
export function refuseFunctions(config: unknown): void {
  const lost = functionIn(config, '');
  if (lost !== undefined) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `config.json cannot hold ${lost}, a function: write a coefficient that changes as { kind: 'linear', from, to, steps }`,
    );
  }
}

/**
 * The config.json of a model: the fields of its family for other readers, and the complete `libmoe` block that ours takes.
 * @param family as {@link SaveOptions.family}
 * @throws ERR_LIBMOE_CONFIG for a function in it, ERR_LIBMOE_UNSUPPORTED saying what the family lacks
 */
export function configJson(model: LanguageModel, family?: string): JsonObject {
  refuseFunctions(model.config);
  const { architecture, fields } = familyOf(model.config, { preferred: model.family, required: family });
  return {
    architectures: [architecture.name],
    model_type: architecture.modelType,
    ...fields,
    ...Object.fromEntries(specialTokenFields.map((field) => [field, null])),
    ...model.specialTokens,
    dtype: dtypeName(model.dtype),
    torch_dtype: dtypeName(model.dtype),
    libmoe: { version: 1, model: model.config as unknown as JsonValue },
  };
}

/** Whole numbers of these fields, which transformers refuses (or warns of) without a decimal point. */
const wholeFloats =
  /^(\s*"(?:routed_scaling_factor|initializer_range|rope_theta|factor|\w+_factor|beta_fast|beta_slow|mscale|mscale_all_dim)": -?\d+)(?=,?$)/gm;

/** The text of a config.json. */
export const configText = (json: JsonObject): string =>
  `${JSON.stringify(json, null, 2).replace(wholeFloats, '$1.0')}\n`;

/**
 * Writes config.json and the weights into `folder`, which exists: a part of a larger checkpoint. Returns the file names.
 * @param family as {@link SaveOptions.family}
 * @throws as {@link configJson}
 */
export function writeModelFiles(model: LanguageModel, folder: string, family?: string): string[] {
  const { architecture } = familyOf(model.config, { preferred: model.family, required: family });
  writeFileAtomically(join(folder, 'config.json'), configText(configJson(model, family)));
  const files = scope(() => {
    const tensors = fileTensorsOf(layoutOf(architecture, model.config), model.stateDict());
    return writeShardedSafetensors(folder, tensors);
  });
  return ['config.json', ...files];
}

/** As what a model is saved, and beside what. */
export interface SaveOptions {
  /**
   * The family that the checkpoint must be of: a name such as `MixtralForCausalLM`, or `public` for any that `transformers` loads. Default: the
   * first family that has the model, at last `LibMoeForCausalLM`, which only libmoe loads.
   */
  family?: string | undefined;
  /** Writes further files (a tokenizer) into the folder before it gets its name. */
  extra?: ((folder: string) => void | Promise<void>) | undefined;
}

/**
 * Saves a model as a folder in Hugging Face's layout, under the names of its family where one describes it. The folder appears whole or not at
 * all, and replaces an older one that libmoe wrote; any other folder that is not empty is refused.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CONFIG for router options that a file cannot hold; before anything is written ERR_LIBMOE_UNSUPPORTED when
 * the family (or, of `public`, the nearest) lacks something of the model, saying what, and ERR_LIBMOE_ARGUMENT for a family that does not exist or no path
 */
export async function saveModel(
  model: LanguageModel,
  folder: string,
  { family, extra }: SaveOptions = {},
): Promise<void> {
  if (folder === '')
    fail(
      'ERR_LIBMOE_ARGUMENT',
      'saveModel expects a folder, got an empty path: name one that libmoe may fill',
    );
  const place = resolve(folder);
  refuseForeign(place);
  familyOf(model.config, { preferred: model.family, required: family });
  await writeFolderAtomically(place, async (temporary) => {
    writeModelFiles(model, temporary, family);
    await extra?.(temporary);
    writeChecksums(temporary);
  });
}

/** Throws unless everything in the folder that will be replaced is listed in its checksums: what libmoe wrote. */
export function refuseForeign(folder: string): void {
  if (!existsSync(folder)) return;
  if (!statSync(folder).isDirectory()) fail('ERR_LIBMOE_FILE', `${folder} is a file: choose another folder`);
  const names = readdirSync(folder);
  const checksums = join(folder, checksumFile);
  const listed = existsSync(checksums) ? readJsonObject(checksums).files : undefined;
  const ours = new Set([checksumFile]);
  if (isJsonObject(listed)) for (const name of Object.keys(listed)) ours.add(name.split('/')[0]!);
  const foreign = names.find((name) => !ours.has(name));
  if (foreign !== undefined) {
    fail(
      'ERR_LIBMOE_FILE',
      `${folder} holds ${foreign}, which libmoe did not write there and saving would delete: move it, or choose another folder`,
    );
  }
}
