import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { fail } from '../../native/index.ts';
import { isJsonObject, type JsonObject, reasonOf } from '../../storage/json.ts';

/** Extensions of pickle files: of a pickle alone, or of an archive with one inside. */
const pickleExtensions = new Set(['.pt', '.pth', '.ckpt', '.pkl', '.pickle']);
const pickleNamed = (name: string): boolean =>
  pickleExtensions.has(extname(name)) || /^(pytorch_model|adapter_model|model)[\w.-]*\.bin$/.test(name);

/** The first bytes of a file; fewer when it is shorter. @throws ERR_LIBMOE_FILE */
function firstBytes(path: string): Buffer {
  const bytes = Buffer.alloc(4);
  try {
    const descriptor = openSync(path, 'r');
    try {
      return bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, 0));
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `cannot read ${path} (${reasonOf(cause)})`, cause);
  }
}

/**
 * Whether a file begins as torch.save writes: a zip archive, or formerly a bare pickle (protocol 2 to 5, then an operation, which is never 0,
 * unlike the third byte of a llama2.c header).
 */
const beginsAsPickle = (head: Buffer): boolean =>
  head.toString('latin1') === 'PK\x03\x04' ||
  (head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5 && (head[2] ?? 0) !== 0);

function refusePickle(path: string, folder: string): never {
  return fail(
    'ERR_LIBMOE_UNSUPPORTED',
    `${path} is a pickle file, which can run any code when it is read: libmoe never opens one. If you trust it, convert it to safetensors in Python: ` +
      `from transformers import AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained("${folder}").save_pretrained("converted", safe_serialization=True)`,
  );
}

/** Refuses a file that is no llama2.c checkpoint by what it is: a pickle, a GGUF file, a part of a folder. @throws ERR_LIBMOE_UNSUPPORTED, _CHECKPOINT, _FILE */
export function refuseForeignFile(path: string): void {
  const head = firstBytes(path);
  const folder = dirname(path);
  if (pickleExtensions.has(extname(path)) || beginsAsPickle(head)) refusePickle(path, folder);
  if (head.toString('latin1') === 'GGUF') {
    fail('ERR_LIBMOE_UNSUPPORTED', `${path} is a GGUF file: give the Hugging Face folder it was made from`);
  }
  if (/\.(safetensors|json)$/.test(path)) {
    fail('ERR_LIBMOE_CHECKPOINT', `${path} is a part of a checkpoint: give its folder, ${folder}`);
  }
}

/** Refuses to load from a folder whose weights are in a pickle. @throws ERR_LIBMOE_UNSUPPORTED */
export function refusePickledWeights(folder: string): void {
  const names = readdirSync(folder);
  const pickle = names.find(pickleNamed);
  // Many folders hold both; the pickle is not needed then.
  if (pickle !== undefined && !names.some((name) => /^model.*\.safetensors/.test(name))) {
    refusePickle(join(folder, pickle), folder);
  }
}

/** Says what a folder lacks to be a checkpoint. @throws ERR_LIBMOE_CHECKPOINT */
export function refuseForeignFolder(folder: string): void {
  if (existsSync(join(folder, 'config.json'))) return;
  const names = readdirSync(folder);
  const found = names.length === 0 ? 'is empty' : `has no config.json (it has ${shown(names)})`;
  fail(
    'ERR_LIBMOE_CHECKPOINT',
    `${folder} ${found}: a checkpoint is a folder with config.json and *.safetensors`,
  );
}

const shown = (names: readonly string[]): string =>
  names
    .slice(0, 3)
    .map((name) => basename(name))
    .join(', ') + (names.length > 3 ? ', …' : '');

/** Refuses weights that were stored in fewer bits, whose names and shapes differ from the model's. @throws ERR_LIBMOE_UNSUPPORTED */
export function refuseQuantised(json: JsonObject, source: string, readable: readonly string[] = []): void {
  const quantisation = json.quantization_config ?? undefined;
  if (quantisation === undefined) return;
  const method = isJsonObject(quantisation) ? quantisation.quant_method : undefined;
  if (readable.some((known) => known === method)) return;
  fail(
    'ERR_LIBMOE_UNSUPPORTED',
    `${source}: the checkpoint is quantised (quantization_config: ${JSON.stringify(method ?? quantisation)}), and libmoe reads weights in ` +
      'F32, BF16, F16 or F64 only: take the checkpoint that was not quantised, or load it in transformers, dequantise it (model.dequantize()) and save it',
  );
}
