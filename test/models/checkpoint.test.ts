import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type LanguageModel,
  type LanguageModelOptions,
  loadModel,
  packSequences,
  readConfig,
  saveModel,
} from '../../ts/models/language/index.ts';
import { openSafetensors } from '../../ts/storage/safetensors.ts';
import { memory, noGrad, scope } from '../../ts/tensor/index.ts';
import { someIds, tinyConfig, tinyLibmoe, tinyModel, tinyMoe } from './tiny.ts';

const golden = fileURLToPath(new URL('../golden/language', import.meta.url));
const logits = (model: LanguageModel): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(packSequences([someIds(9)]))).toArray()));

const withTokenizer = (to: string): void => writeFileSync(join(to, 'tokenizer.json'), '{}');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-checkpoint-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('checkpoints', () => {
  const allMoe: LanguageModelOptions = { ...tinyMoe, moe: { ...tinyMoe.moe!, layers: 'all' } };
  const cases: [string, LanguageModelOptions, string, string][] = [
    ['dense Llama', tinyConfig, 'LlamaForCausalLM', 'model.layers.1.mlp.gate_proj.weight'],
    [
      'tied Llama with biases',
      { ...tinyConfig, tieEmbeddings: true, attentionBias: true },
      'LlamaForCausalLM',
      'model.layers.0.self_attn.o_proj.bias',
    ],
    ['Mixtral', allMoe, 'MixtralForCausalLM', 'model.layers.2.block_sparse_moe.experts.3.w2.weight'],
    ['some MoE layers', tinyMoe, 'LibMoeForCausalLM', 'blocks.1.moe.experts.up'],
    [
      'another router',
      { ...allMoe, moe: { ...allMoe.moe!, router: { name: 'sigmoid', zCoefficient: 0.001 } } },
      'LibMoeForCausalLM',
      'blocks.0.moe.router.weight',
    ],
    ["LibMoE's form", tinyLibmoe, 'LibMoeForCausalLM', 'output.bias'],
  ];
  it.each(cases)(
    '%s: saves under the right names and loads the same bits and configuration',
    async (_, config, name, tensor) => {
      using model = tinyModel(config);
      const path = join(folder, 'model');
      await saveModel(model, path, { extra: withTokenizer });
      expect(readdirSync(path).sort()).toEqual([
        'checksums.json',
        'config.json',
        'model.safetensors',
        'tokenizer.json',
      ]);
      expect(readConfig(path).json.architectures).toEqual([name]);
      expect(openSafetensors(path).names()).toContain(tensor);
      using loaded = await loadModel(path);
      expect(loaded.config).toEqual(model.config);
      expect(logits(loaded)).toEqual(logits(model));
      expect(readdirSync(folder)).toEqual(['model']);
    },
  );

  it('keeps bf16, and converts on request', async () => {
    using model = tinyModel(tinyConfig, { dtype: 'bf16' });
    const path = join(folder, 'model');
    await saveModel(model, path);
    using loaded = await loadModel(path);
    expect(loaded.dtype).toBe('bf16');
    expect(logits(loaded)).toEqual(logits(model));
    using wide = await loadModel(path, { dtype: 'f32' });
    expect(wide.embedding.weight.toArray()).toEqual(model.embedding.weight.toArray());
  });

  it('what transformers wrote and we write again has the same tensors', async () => {
    for (const name of ['llama', 'llama-tied', 'mixtral']) {
      using model = await loadModel(join(golden, name));
      await saveModel(model, join(folder, name));
      const [theirs, ours] = [openSafetensors(join(golden, name)), openSafetensors(join(folder, name))];
      expect(ours.names().sort()).toEqual(theirs.names().sort());
      scope(() => {
        for (const tensor of theirs.names())
          expect(ours.read(tensor).toArray()).toEqual(theirs.read(tensor).toArray());
      });
    }
  });

  describe('that are damaged or foreign are refused by name', () => {
    const json = (): Record<string, unknown> =>
      JSON.parse(readFileSync(join(folder, 'm/config.json'), 'utf8')) as Record<string, unknown>;
    const rewrite = (change: object): void =>
      writeFileSync(join(folder, 'm/config.json'), JSON.stringify({ ...json(), ...change }));
    const refused = async (message: RegExp): Promise<void> => {
      const before = memory().tensors;
      await expect(loadModel(join(folder, 'm'))).rejects.toThrow(message);
      expect(memory().tensors).toBe(before);
    };
    beforeEach(() => cpSync(join(golden, 'llama'), join(folder, 'm'), { recursive: true }));

    it('no folder, no config, no weights', async () => {
      await expect(loadModel(join(folder, 'absent'))).rejects.toThrow(/ERR_LIBMOE_FILE.*no checkpoint at/);
      rmSync(join(folder, 'm/model.safetensors'));
      await refused(/ERR_LIBMOE_CHECKPOINT.*neither model.safetensors nor/);
      rmSync(join(folder, 'm/config.json'));
      await refused(/ERR_LIBMOE_CHECKPOINT.*config.json/);
    });

    it('an unknown architecture, rotary scaling, an unknown activation, a wrong field', async () => {
      rewrite({ architectures: ['MambaForCausalLM'] });
      await refused(/ERR_LIBMOE_UNSUPPORTED.*MambaForCausalLM.*known are LlamaForCausalLM/);
      rewrite({
        architectures: ['LlamaForCausalLM'],
        rope_parameters: { rope_type: 'dynamic', rope_theta: 1e4, factor: 8 },
      });
      await refused(/ERR_LIBMOE_CONFIG.*rotary scaling "dynamic" is not supported/);
      rewrite({ rope_parameters: null, hidden_act: 'mish' });
      await refused(/"hidden_act": "mish"/);
      rewrite({ hidden_act: 'silu', hidden_size: 'big' });
      await refused(/"hidden_size" must be a number, got "big"/);
    });

    it('weights that do not fit the configuration', async () => {
      rewrite({ num_hidden_layers: 3 });
      await refused(/ERR_LIBMOE_CHECKPOINT.*missing: model.layers.2.input_layernorm.weight/);
      rewrite({ num_hidden_layers: 1 });
      await refused(/unexpected: .*model.layers.1/);
      rewrite({ num_hidden_layers: 2, intermediate_size: 45 });
      await refused(
        /wrong shape: model.layers.0.mlp.gate_proj.weight \(expected \[45, 32\], got \[44, 32\]\)/,
      );
    });

    it('a truncated file, and one changed after it was saved', async () => {
      truncateSync(join(folder, 'm/model.safetensors'), 20_000);
      await refused(/ERR_LIBMOE_CHECKPOINT.*model.safetensors/);
      using model = tinyModel();
      rmSync(join(folder, 'm'), { recursive: true });
      await saveModel(model, join(folder, 'm'));
      const file = join(folder, 'm/model.safetensors');
      const bytes = readFileSync(file);
      bytes[bytes.length - 5]! ^= 1;
      writeFileSync(file, bytes);
      await refused(/ERR_LIBMOE_CHECKPOINT.*model.safetensors/);
    });
  });

  it('keeps coefficient schedules, and refuses functions, which would come back as defaults', async () => {
    const scheduled = (balanceCoefficient: unknown): LanguageModelOptions => ({
      ...tinyMoe,
      moe: { ...tinyMoe.moe!, router: { name: 'smoe', balanceCoefficient } },
    });
    using model = tinyModel(scheduled({ kind: 'linear', from: 0.1, to: 0, steps: 50 }));
    await saveModel(model, join(folder, 'm'));
    using loaded = await loadModel(join(folder, 'm'));
    expect(loaded.config).toEqual(model.config);
    using other = tinyModel(scheduled((step: number) => 1 / (step + 1)));
    await expect(saveModel(other, join(folder, 'n'))).rejects.toThrow(
      /ERR_LIBMOE_CONFIG: .*moe\.router\.balanceCoefficient, a function/,
    );
    expect(readdirSync(folder)).toEqual(['m']);
  });

  it('replaces nothing but what it wrote', async () => {
    using model = tinyModel();
    const path = join(folder, 'thesis');
    mkdirSync(path);
    await saveModel(model, path); // empty
    await saveModel(model, path, { extra: withTokenizer });
    writeFileSync(join(path, 'thesis.tex'), 'years');
    await expect(saveModel(model, path)).rejects.toThrow(/ERR_LIBMOE_FILE.*holds thesis\.tex/);
    expect(readFileSync(join(path, 'thesis.tex'), 'utf8')).toBe('years');
    await expect(saveModel(model, join(path, 'thesis.tex'))).rejects.toThrow(/ERR_LIBMOE_FILE.*is a file/);
    const theirs = join(folder, 'theirs');
    cpSync(join(golden, 'llama'), theirs, { recursive: true });
    await expect(saveModel(model, theirs)).rejects.toThrow(/ERR_LIBMOE_FILE.*holds config\.json/);
  });

  it('never replaces the folder one stands in, however it is called', async () => {
    using model = tinyModel();
    const here = process.cwd();
    mkdirSync(join(folder, 'mine'));
    writeFileSync(join(folder, 'mine/thesis.tex'), 'years');
    process.chdir(join(folder, 'mine'));
    try {
      await expect(saveModel(model, '')).rejects.toThrow(/ERR_LIBMOE_ARGUMENT.*empty path/);
      for (const name of ['.', './', '../mine', join(folder, 'mine')])
        await expect(saveModel(model, name)).rejects.toThrow(/ERR_LIBMOE_FILE.*holds thesis\.tex/);
    } finally {
      process.chdir(here);
    }
    expect(readdirSync(join(folder, 'mine'))).toEqual(['thesis.tex']);
  });

  it('a failed save leaves the old checkpoint', async () => {
    using model = tinyModel();
    const path = join(folder, 'm');
    await saveModel(model, path);
    const before = readFileSync(join(path, 'model.safetensors'));
    using other = tinyModel(tinyConfig, { seed: 9 });
    await expect(
      saveModel(other, path, {
        extra() {
          throw new Error('no room');
        },
      }),
    ).rejects.toThrow('no room');
    expect(readFileSync(join(path, 'model.safetensors')).equals(before)).toBe(true);
    expect(existsSync(join(path, 'config.json'))).toBe(true);
    expect(readdirSync(folder)).toEqual(['m']);
  });
});
