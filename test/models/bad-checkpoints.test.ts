import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadModel, readConfig, readModelConfig } from '../../ts/models/language/index.ts';
import { readSafetensors, writeSafetensors, writeShardedSafetensors } from '../../ts/storage/safetensors.ts';
import { memory, scope, tensor } from '../../ts/tensor/index.ts';

const golden = fileURLToPath(new URL('../golden/language/llama', import.meta.url));

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-bad-'));
  path = join(folder, 'm');
  cpSync(golden, path, { recursive: true, filter: (name) => !name.endsWith('expected.safetensors') });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Loading fails with this message and leaves no tensor behind. */
async function refused(message: RegExp, what = path): Promise<void> {
  const before = memory().tensors;
  await expect(loadModel(what)).rejects.toThrow(message);
  expect(memory().tensors).toBe(before);
}

const config = (): Record<string, unknown> =>
  JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as Record<string, unknown>;
const rewrite = (change: object): void =>
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config(), ...change }));

/** The same weights in shards with an index. */
function shard(): string[] {
  scope(() => {
    const tensors = readSafetensors(path);
    rmSync(join(path, 'model.safetensors'));
    writeShardedSafetensors(path, tensors, { maxShardBytes: 20_000 });
  });
  return readdirSync(path).filter((name) => name.endsWith('.safetensors'));
}

describe('a checkpoint of shards', () => {
  it('loads whole, and names a missing shard and a missing index', async () => {
    const shards = shard();
    expect(shards.length).toBeGreaterThan(2);
    (await loadModel(path)).dispose();
    renameSync(join(path, shards[1]!), join(folder, 'elsewhere'));
    await refused(new RegExp(`ERR_LIBMOE_CHECKPOINT: .*names ${shards[1]}, which is missing.* \\d+ tensors`));
    renameSync(join(folder, 'elsewhere'), join(path, shards[1]!));
    rmSync(join(path, 'model.safetensors.index.json'));
    await refused(
      /ERR_LIBMOE_CHECKPOINT: .*neither model\.safetensors nor .*it has model-0.*without the index/,
    );
  });

  it('one of them truncated, or another file in its place', async () => {
    const [first, second] = shard();
    copyFileSync(join(path, first!), join(path, second!));
    await refused(/ERR_LIBMOE_CHECKPOINT: tensor ".*" is in both/);
    truncateSync(join(path, second!), 10_000);
    await refused(/ERR_LIBMOE_CHECKPOINT: .*is truncated: tensor/);
    truncateSync(join(path, second!), 5);
    await refused(/ERR_LIBMOE_CHECKPOINT: .*has 5 bytes: too short/);
    truncateSync(join(path, second!), 0);
    await refused(/ERR_LIBMOE_CHECKPOINT: .*has 0 bytes: too short/);
  });

  it('an index that leads out of the folder', async () => {
    shard();
    const index = join(path, 'model.safetensors.index.json');
    writeFileSync(index, readFileSync(index, 'utf8').replace(/"model-00001[^"]*"/, '"../../etc/passwd"'));
    await refused(
      /ERR_LIBMOE_CHECKPOINT: .*must name a file of the same folder, got "\.\.\/\.\.\/etc\/passwd"/,
    );
    writeFileSync(index, '{"weight_map": ["a"]}');
    await refused(/ERR_LIBMOE_CHECKPOINT: .*has no "weight_map" object/);
  });
});

describe('tensors', () => {
  it('of a wrong shape, missing, too many and of integers are all named', async () => {
    scope(() => {
      const tensors = readSafetensors(path);
      tensors.set('model.norm.weight', tensor([1, 2, 3]));
      tensors.set('model.layers.0.input_layernorm.weight', tensor(new Int32Array(32)));
      tensors.delete('lm_head.weight');
      tensors.set('lm_head.scales', tensor([1]));
      writeSafetensors(join(path, 'model.safetensors'), tensors);
    });
    await refused(
      /ERR_LIBMOE_CHECKPOINT: .*missing: lm_head\.weight; unexpected: lm_head\.scales; wrong shape: model\.norm\.weight \(expected \[32\], got \[3\]\); not of floats: model\.layers\.0\.input_layernorm\.weight \(I32\)/,
    );
  });

  it('in a file that is cut off', async () => {
    truncateSync(join(path, 'model.safetensors'), 20_000);
    await refused(/ERR_LIBMOE_CHECKPOINT: .*model\.safetensors is truncated: tensor ".*" ends at byte/);
  });
});

describe('config.json', () => {
  it('missing, or in an empty folder', async () => {
    rmSync(join(path, 'config.json'));
    await refused(
      /ERR_LIBMOE_CHECKPOINT: .*m has no config\.json \(it has .*model\.safetensors.*a checkpoint is/,
    );
    mkdirSync(join(folder, 'empty'));
    await refused(/ERR_LIBMOE_CHECKPOINT: .*empty is empty: a checkpoint is/, join(folder, 'empty'));
  });

  it('broken, or not an object', async () => {
    writeFileSync(join(path, 'config.json'), '{"architectures": [}');
    await refused(/ERR_LIBMOE_CONFIG: .*config\.json:1:20 is not valid JSON: expected a value, got "}"/);
    writeFileSync(join(path, 'config.json'), '');
    await refused(/ERR_LIBMOE_CONFIG: .*config\.json:1:1 is not valid JSON/);
    writeFileSync(join(path, 'config.json'), '[]');
    await refused(/ERR_LIBMOE_CONFIG: .*must hold a JSON object, got an array/);
  });

  it('of an unknown architecture', async () => {
    rewrite({ architectures: ['MambaForCausalLM'] });
    await refused(/ERR_LIBMOE_UNSUPPORTED: .*"MambaForCausalLM" cannot be read; known are LlamaForCausalLM/);
    rewrite({ architectures: undefined, model_type: 'mamba' });
    await refused(/ERR_LIBMOE_UNSUPPORTED: .*"mamba" cannot be read/);
    rewrite({ architectures: 7, model_type: undefined });
    await refused(/ERR_LIBMOE_UNSUPPORTED: .*null cannot be read/);
  });

  it.each(['gptq', 'awq', 'bitsandbytes', 'fp8', 'mxfp4'])('of weights quantised by %s', async (method) => {
    rewrite({ quantization_config: { quant_method: method, bits: 4 } });
    await refused(
      new RegExp(
        `ERR_LIBMOE_UNSUPPORTED: .*config.json: the checkpoint is quantised .*"${method}".*dequantise`,
      ),
    );
    expect(() => readConfig(path)).toThrow(/quantised/);
  });
});

describe('impossible sizes in config.json', () => {
  it.each([
    [
      { num_attention_heads: 3, head_dim: null },
      /"hidden_size" \d+ is not a multiple of "num_attention_heads" 3/,
    ],
    [{ num_attention_heads: 0 }, /"num_attention_heads" must be a positive integer, got 0/],
    [{ num_attention_heads: 4, num_key_value_heads: 3 }, /language model: heads 4 must be a multiple of/],
    [{ num_hidden_layers: 1e10 }, /"num_hidden_layers" must be at most 10000/],
    [{ num_hidden_layers: 1.5 }, /"num_hidden_layers" must be a positive integer, got 1.5/],
    [{ vocab_size: -1 }, /"vocab_size" must be a positive integer/],
    [{ initializer_range: 0 }, /language model: init/],
    [{ libmoe: { version: 1, model: { layers: 1e10 } } }, /language model: .*layers: /],
  ])('%j are named, and the file', async (change, message) => {
    rewrite(change);
    await refused(new RegExp(`ERR_LIBMOE_CONFIG: ${join(path, 'config.json')}: ${message.source}`));
  });
});

describe('a pickle file', () => {
  const pickle = Buffer.from([0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46]);
  const advice = /ERR_LIBMOE_UNSUPPORTED: .* is a pickle file, which can run any code.*safetensors in Python/;

  it.each([
    'pytorch_model.bin',
    'pytorch_model-00001-of-00002.bin',
    'consolidated.00.pth',
    'model.pt',
    'last.ckpt',
  ])('in the folder: %s', async (name) => {
    writeFileSync(join(path, name), pickle);
    (await loadModel(path)).dispose(); // beside safetensors it is not needed
    rmSync(join(path, 'model.safetensors'));
    await refused(advice);
    await refused(new RegExp(name.replaceAll('.', '\\.')));
    expect(readModelConfig(path).layers).toBe(2); // nothing of it is needed to know the model
    rmSync(join(path, 'config.json'));
    await refused(advice);
  });

  it('given as the path, whatever its name', async () => {
    for (const [name, bytes] of [
      ['model.pt', pickle],
      ['last.ckpt', Buffer.from('anything')],
      ['pytorch_model.bin', Buffer.from('PK\x03\x04 an archive', 'latin1')],
      ['stories.bin', pickle],
    ] as const) {
      writeFileSync(join(folder, name), bytes);
      await refused(advice, join(folder, name));
    }
  });

  it('is not what a llama2.c file of width 640 begins like', async () => {
    const header = Buffer.alloc(28);
    for (const [i, size] of [640, 0, 1, 1, 1, 1, 1].entries()) header.writeInt32LE(size, 4 * i);
    writeFileSync(join(folder, 'a.bin'), header);
    await refused(/ERR_LIBMOE_CHECKPOINT: .*is not a llama2\.c checkpoint/, join(folder, 'a.bin'));
  });
});

it('a GGUF file, and a single file of a checkpoint, are refused by name', async () => {
  writeFileSync(join(folder, 'm.gguf'), 'GGUF\x03');
  await refused(/ERR_LIBMOE_UNSUPPORTED: .*is a GGUF file/, join(folder, 'm.gguf'));
  await refused(
    /ERR_LIBMOE_CHECKPOINT: .*is a part of a checkpoint: give its folder/,
    join(path, 'model.safetensors'),
  );
  await refused(/ERR_LIBMOE_CHECKPOINT: .*give its folder/, join(path, 'config.json'));
});
