import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { configJson, loadModel } from '../../ts/models/language/index.ts';
import { openSafetensors, writeShardedSafetensors } from '../../ts/storage/safetensors.ts';
import { scope, zeros } from '../../ts/tensor/index.ts';
import { familyAgrees } from './family-agrees.ts';

describe.each(['mixtral-window', 'olmoe', 'qwen2-moe', 'qwen3-moe', 'llama4'])('%s', familyAgrees);
// Of make_deepseek.py.
describe.each(['deepseek-v2', 'deepseek-v2-groups', 'deepseek-v3', 'deepseek-v3-halves'])('%s', familyAgrees);
// Of make_gpt_oss.py.
describe('gpt-oss', () => familyAgrees('gpt-oss'));

it('reads the text model of a Llama 4 checkpoint with images, and writes it by itself', async () => {
  const golden = fileURLToPath(new URL('../golden/language/llama4', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'libmoe-llama4-'));
  cpSync(golden, folder, { recursive: true });
  const golds = JSON.parse(readFileSync(join(golden, 'config.json'), 'utf8')) as object;
  // As published: the tokens that begin and end a text are told beside the sizes, not above them.
  const tokens = { bos_token_id: 1, eos_token_id: [2, 3], pad_token_id: 4 };
  const text = { ...golds, ...tokens };
  const whole = {
    architectures: ['Llama4ForConditionalGeneration'],
    model_type: 'llama4',
    text_config: text,
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(whole));
  scope(() => {
    const file = openSafetensors(golden);
    const named = file.names().map((name) => [`language_model.${name}`, file.read(name)] as const);
    const image = ['vision_model.class_embedding', 'multi_modal_projector.linear_1.weight'];
    const others = image.map((name) => [name, zeros([2])] as const);
    writeShardedSafetensors(folder, new Map([...named, ...others]));
  });
  using alone = await loadModel(golden);
  using model = await loadModel(folder);
  expect(model.config).toEqual(alone.config);
  const wanted = [...alone.namedParameters()].map(([name, value]) => [name, value.toArray()]);
  expect([...model.namedParameters()].map(([name, value]) => [name, value.toArray()])).toEqual(wanted);
  expect(model.specialTokens).toEqual(tokens);
  expect(configJson(model)).toEqual({ ...configJson(alone), ...tokens });
  rmSync(folder, { recursive: true });
});
