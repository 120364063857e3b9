import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  architectures,
  familyOf,
  LanguageModel,
  type LanguageModelOptions,
  loadModel,
  publicFamilyOf,
  readConfig,
  resolveLanguageModelConfig,
  saveModel,
} from '../../ts/models/language/index.ts';
import { routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { tinyConfig, tinyModel } from './tiny.ts';

type Moe = NonNullable<LanguageModelOptions['moe']>;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-public-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const plain: Moe = { experts: 4, topK: 2, expert: { hidden: 16 } };
const mixtral: LanguageModelOptions = { ...tinyConfig, moe: plain };
const { keyValueHeads: _, headDim: __, ...tinyMla } = tinyConfig;
const latent: LanguageModelOptions = {
  ...tinyMla,
  attention: { kind: 'mla', keyValueRank: 8, contentDim: 4, rotaryDim: 4, valueDim: 4 },
  rotary: { interleaved: true },
};
const deepseek = (router: Moe['router'], more: Partial<Moe> = {}): LanguageModelOptions => ({
  ...latent,
  moe: { ...plain, router, shared: { hidden: 16 }, ...more },
});
const llama4: LanguageModelOptions = {
  ...tinyConfig,
  rotary: { interleaved: true },
  moe: {
    ...plain,
    router: { name: 'sigmoid', normalise: false },
    weighted: 'inputs',
    shared: { hidden: 16 },
  },
};
const gptOss: LanguageModelOptions = {
  ...tinyConfig,
  attentionBias: true,
  attentionSinks: true,
  moe: {
    ...plain,
    router: { name: 'smoe', bias: true },
    expert: { hidden: 16, activation: 'clampedSwiglu', bias: true },
  },
};
const gpt2: LanguageModelOptions = {
  ...tinyConfig,
  keyValueHeads: 4,
  norm: 'layernorm',
  positions: 'learned',
  feedForward: { hidden: 40, activation: 'geluTanh', gated: false, bias: true },
  attentionBias: true,
};

const forms: [family: string, options: LanguageModelOptions][] = [
  ['LlamaForCausalLM', tinyConfig],
  ['MistralForCausalLM', { ...tinyConfig, window: 8 }],
  ['Qwen2ForCausalLM', { ...tinyConfig, attentionBias: true, attentionOutputBias: false }],
  ['Qwen3ForCausalLM', { ...tinyConfig, qkNorm: 'head' }],
  ['Phi3ForCausalLM', { ...tinyConfig, rotary: { dims: 4 } }],
  ['GPT2LMHeadModel', gpt2],
  ['MixtralForCausalLM', mixtral],
  ['OlmoeForCausalLM', { ...mixtral, qkNorm: 'projection' }],
  ['Qwen2MoeForCausalLM', { ...mixtral, moe: { ...plain, shared: { hidden: 8, sigmoidGate: true } } }],
  ['Qwen3MoeForCausalLM', { ...mixtral, qkNorm: 'head', moe: { ...plain, layers: 'every:2' } }],
  ['Llama4ForCausalLM', llama4],
  ['DeepseekV2ForCausalLM', deepseek({ name: 'shared-v2' }, { compat: 'original' })],
  ['DeepseekV3ForCausalLM', deepseek({ name: 'shared-v3' })],
  ['GptOssForCausalLM', gptOss],
];
const formOf = (family: string): LanguageModelOptions => forms.find(([name]) => name === family)![1];

const lostIn = (family: string, options: LanguageModelOptions): string[] => {
  const config = resolveLanguageModelConfig(options);
  const { needs } = architectures.find(({ name }) => name === family)!;
  return needs(config).flatMap(([met, words]) => (met ? [] : [words]));
};

describe('a family', () => {
  it.each(forms)('%s has a model of its form, and is found for it', (family, options) => {
    const config = resolveLanguageModelConfig(options);
    expect(familyOf(config, { required: family }).architecture.name).toBe(family);
    expect(publicFamilyOf(config)).toEqual({ family, lost: [] });
    expect(familyOf(config, { required: 'public' }).architecture.name).toBe(family);
  });

  // A change of the model, and all that its family lacks then.
  const changes: [
    family: string,
    change: Partial<LanguageModelOptions>,
    moe: Partial<Moe>,
    lost: string[],
  ][] = [
    ['LlamaForCausalLM', { moe: plain }, {}, ['experts']],
    ['LlamaForCausalLM', { norm: 'layernorm' }, {}, ['LayerNorm']],
    [
      'LlamaForCausalLM',
      { window: 8, qkNorm: 'head' },
      {},
      ['norms of queries and keys (qkNorm "head")', 'windows of attention'],
    ],
    ['LlamaForCausalLM', { feedForward: { hidden: 40, gated: false } }, {}, ['dense layers without gate']],
    ['LlamaForCausalLM', { rotary: { layers: [1] } }, {}, ['layers without rotary embedding']],
    ['LlamaForCausalLM', { chunk: { size: 8 } }, {}, ['attention within pieces (chunk)']],
    ['LlamaForCausalLM', { outputBias: true }, {}, ['a bias of the projection to the vocabulary']],
    ['MistralForCausalLM', { window: [8, null, 8] }, {}, ['different windows in different layers']],
    ['Qwen2ForCausalLM', { attentionBias: false }, {}, ['queries, keys and values without biases']],
    ['Qwen2ForCausalLM', { window: [8, 4, null] }, {}, ['windows of several sizes']],
    ['Qwen3ForCausalLM', { qkNorm: undefined }, {}, ['queries and keys without norms']],
    [
      'Phi3ForCausalLM',
      { rotary: { scaling: { kind: 'linear', factor: 2 } } },
      {},
      ['rotary scaling "linear"'],
    ],
    ['GPT2LMHeadModel', { keyValueHeads: 2 }, {}, ['fewer heads of keys and values than of queries']],
    ['MixtralForCausalLM', { moe: undefined }, {}, ['dense layers alone']],
    ['MixtralForCausalLM', {}, { router: { name: 'xmoe' } }, ['router "xmoe"']],
    ['MixtralForCausalLM', {}, { router: { name: 'smoe', bias: true } }, ['a router with bias']],
    [
      'MixtralForCausalLM',
      {},
      { router: { name: 'smoe', normalise: false } },
      ['weights that are not divided by their sum'],
    ],
    ['MixtralForCausalLM', {}, { layers: 'every:2' }, ['experts in some layers alone (layers every:2)']],
    ['MixtralForCausalLM', {}, { capacityFactor: 1.5 }, ['capacityFactor 1.5']],
    ['MixtralForCausalLM', {}, { routedScaling: 2 }, ['routedScaling 2']],
    ['MixtralForCausalLM', {}, { shared: { hidden: 8 }, sharedMix: 'half' }, ['a shared expert']],
    ['MixtralForCausalLM', {}, { weighted: 'inputs' }, ['weights of experts\' inputs (weighted: "inputs")']],
    ['MixtralForCausalLM', {}, { expert: { hidden: 16, gated: false } }, ['experts without gate']],
    ['MixtralForCausalLM', {}, { expert: { hidden: 16, bias: true } }, ['experts with biases']],
    ['MixtralForCausalLM', { attentionSinks: true }, {}, ['attention sinks']],
    ['MixtralForCausalLM', { attentionBias: true }, {}, ['biases of attention']],
    ['Qwen2MoeForCausalLM', {}, { shared: { hidden: 8 } }, ['a shared expert without sigmoidGate']],
    ['Qwen2MoeForCausalLM', {}, { shared: undefined }, ['no shared expert']],
    ['Qwen2MoeForCausalLM', {}, { sharedMix: 'half' }, ['sharedMix "half"']],
    [
      'Qwen3MoeForCausalLM',
      { feedForward: { hidden: 40, activation: 'gelu' } },
      {},
      ['activation "silu" of experts beside "gelu" of dense layers'],
    ],
    ['Llama4ForCausalLM', {}, { weighted: undefined }, ["weights of experts' outputs"]],
    [
      'Llama4ForCausalLM',
      {},
      { shared: { hidden: 9 } },
      ['a shared expert of another width than the routed ones'],
    ],
    ['Llama4ForConditionalGeneration', {}, {}, ['text alone']],
    ['DeepseekV2ForCausalLM', {}, { compat: 'fixed' }, ['weights that are divided by their sum']],
    ['DeepseekV3ForCausalLM', {}, { compat: 'libmoe' }, ['compat "libmoe"']],
    ['DeepseekV3ForCausalLM', {}, { layers: [0] }, ['dense layers above ones with experts (layers 0)']],
    ['GptOssForCausalLM', { attentionSinks: false }, {}, ['attention without sinks']],
    ['GptOssForCausalLM', {}, { router: { name: 'smoe' } }, ['a router without bias']],
  ];
  it.each(changes)('%s with %j, experts with %j, lacks %j', (family, change, moe, lost) => {
    const form = formOf(family.replace('ForConditionalGeneration', 'ForCausalLM'));
    const changed = { ...form, ...(form.moe && { moe: { ...form.moe, ...moe } }), ...change };
    expect(lostIn(family, changed)).toEqual(lost);
    const config = resolveLanguageModelConfig(changed);
    expect(() => familyOf(config, { required: family })).toThrow(
      `${family} knows no model with ${lost.join('; ')}: change that, or save it as LibMoeForCausalLM`,
    );
  });
});

describe('saveModel with a family', () => {
  // Each router is a public family's in the form where that has it; elsewhere the refusal names it.
  const inForm: Record<string, LanguageModelOptions> = Object.fromEntries(
    forms.flatMap(([, options]) => (options.moe ? [[options.moe.router?.name ?? 'smoe', options]] : [])),
  );
  it.each(routerNames())('router %s is saved under a public family or refused by name', async (name) => {
    const form = inForm[name];
    if (form !== undefined) {
      using model = new LanguageModel(form, { seed: 1 });
      await saveModel(model, join(folder, 'public'), { family: 'public' });
      expect(readConfig(join(folder, 'public')).json.architectures).not.toEqual(['LibMoeForCausalLM']);
      if (name === 'smoe') return;
    }
    const shared = routerDefinition(name).sharedExpert && {
      shared: { hidden: 8 },
      sharedMix: 'half' as const,
    };
    using model = new LanguageModel(
      { ...mixtral, moe: { ...plain, topK: 1, router: { name }, ...shared } },
      { seed: 1 },
    );
    const there = readdirSync(folder);
    for (const family of ['public', 'MixtralForCausalLM'])
      await expect(saveModel(model, join(folder, 'refused'), { family })).rejects.toThrow(
        new RegExp(
          `ERR_LIBMOE_UNSUPPORTED: .*MixtralForCausalLM,? knows no model with router "${name.replaceAll('+', '\\+')}"`,
        ),
      );
    expect(readdirSync(folder)).toEqual(there);
    await saveModel(model, join(folder, 'ours'));
    expect(readConfig(join(folder, 'ours')).json.architectures).toEqual(['LibMoeForCausalLM']);
  });

  it.each([
    ['MixtralForCausalLM', { ...mixtral, moe: { ...plain, layers: 'every:2' } }, 1],
    ['Qwen3MoeForCausalLM', { ...mixtral, qkNorm: 'head', moe: { ...plain, routedScaling: 2 } }, 1],
    ['GptOssForCausalLM', { ...gptOss, chunk: { size: 8 } }, 1],
    ['DeepseekV3ForCausalLM', deepseek({ name: 'shared-v3' }, { capacityFactor: 2 }), 1],
    ['GPT2LMHeadModel', { ...gpt2, outputBias: true, moe: undefined }, 1],
    // Any family with experts is nearer to a mixture than one without.
    ['MixtralForCausalLM', { ...mixtral, moe: { ...plain, router: { name: 'xmoe' }, routedScaling: 2 } }, 2],
  ] satisfies [string, LanguageModelOptions, number][])(
    'names %s as the nearest',
    (family, options, things) => {
      const nearest = publicFamilyOf(resolveLanguageModelConfig(options));
      expect(nearest.family).toBe(family);
      expect(nearest.lost).toHaveLength(things);
    },
  );

  it('leaves an older checkpoint alone when it refuses, and knows no other families', async () => {
    const path = join(folder, 'm');
    using old = tinyModel();
    await saveModel(old, path);
    using model = tinyModel({ ...mixtral, moe: { ...plain, capacityFactor: 1.5 } });
    await expect(saveModel(model, path, { family: 'public' })).rejects.toThrow(
      'no family of transformers has this model; the nearest, MixtralForCausalLM, knows no model with capacityFactor 1.5',
    );
    expect(readConfig(path).json.architectures).toEqual(['LlamaForCausalLM']);
    await expect(saveModel(old, path, { family: 'llama' })).rejects.toThrow(
      /ERR_LIBMOE_ARGUMENT: no family "llama": known are public .*LlamaForCausalLM.*LibMoeForCausalLM/,
    );
    expect(readdirSync(folder)).toEqual(['m']);
  });

  it('goes from ours to a public one and on to another that has the model', async () => {
    using model = tinyModel(mixtral);
    const families: unknown[] = [];
    let from: LanguageModel = model;
    for (const family of ['LibMoeForCausalLM', undefined, 'public', undefined]) {
      const to = join(folder, `m-${families.length}`);
      await saveModel(from, to, { family });
      if (from !== model) from.dispose();
      families.push((readConfig(to).json.architectures as string[])[0]);
      from = await loadModel(to);
      expect(from.embedding.weight.toArray()).toEqual(model.embedding.weight.toArray());
    }
    from.dispose();
    // What was loaded stays of its family unless another is asked for.
    const [ours, mixtralFamily] = ['LibMoeForCausalLM', 'MixtralForCausalLM'];
    expect(families).toEqual([ours, ours, mixtralFamily, mixtralFamily]);
    using llama = tinyModel();
    await saveModel(llama, join(folder, 'mistral'), { family: 'MistralForCausalLM' });
    expect(readConfig(join(folder, 'mistral')).json.architectures).toEqual(['MistralForCausalLM']);
  });
});
