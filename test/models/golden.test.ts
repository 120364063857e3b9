import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { architectures, type LanguageModel, loadModel, readConfig } from '../../ts/models/language/index.ts';
import { ForwardContext } from '../../ts/moe/context.ts';
import { readSafetensors } from '../../ts/storage/safetensors.ts';
import { add, scale } from '../../ts/tensor/elementwise.ts';
import { noGrad, scope, type Tensor } from '../../ts/tensor/index.ts';

// Weights and expectations made by PyTorch: test/golden/language/make.py
const golden = fileURLToPath(new URL('../golden/language', import.meta.url));

function worst(got: readonly number[], wanted: readonly number[]): number {
  expect(got.length).toBe(wanted.length);
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
}

/** Our gradients under the names of the file. */
function gradientsByFile(model: LanguageModel, folder: string): Map<string, number[]> {
  const { architecture } = readConfig(folder);
  const found = new Map<string, number[]>();
  for (const [name, parameter] of model.namedParameters()) {
    const values = parameter.grad?.toArray() ?? [];
    let offset = 0;
    for (const part of architecture.fileTensors(name, parameter.shape, model.config)) {
      const size = part.shape.reduce((a, b) => a * b, 1);
      found.set(part.name, values.slice(offset, offset + size));
      offset += size;
    }
  }
  return found;
}

describe('language models agree with PyTorch', () => {
  const cases = ['llama', 'llama-tied', 'libmoe-dense', 'mixtral', 'libmoe-moe'];
  it.each(cases)(
    '%s: logits, loss and gradients, with and without activation checkpointing',
    async (name) => {
      const folder = join(golden, name);
      const expected = readSafetensors(join(folder, 'expected.safetensors'));
      const value = (key: string): Tensor => expected.get(key)!;
      const batch = {
        ids: value('ids').readSync() as Int32Array,
        targets: value('targets').readSync() as Int32Array,
        sequenceOffsets: value('offsets').readSync() as Int32Array,
      };
      using model = await loadModel(folder);
      for (const recompute of [false, true]) {
        model.activationCheckpointing = recompute;
        model.zeroGrad();
        scope(() => {
          const logits = noGrad(() => model.logits(model.forward(batch))).toArray();
          expect(worst(logits, value('logits').toArray())).toBeLessThan(1e-5);
          // Losses that nobody walks would be left to the collector.
          using context = new ForwardContext({ training: name === 'libmoe-moe' });
          const loss = model.loss(batch, context);
          expect(Math.abs(loss.item() - value('loss').item())).toBeLessThan(1e-5);
          // LibMoE's form: the gradients are those of cross entropy and regulariser together.
          let total = loss;
          if (name === 'libmoe-moe') {
            const losses = context.losses();
            expect(losses).toHaveLength(2);
            const regulariser = losses.reduce(
              (sum, { value, coefficient }) => sum + coefficient * value.item(),
              0,
            );
            expect(Math.abs(regulariser - value('regulariser').item())).toBeLessThan(1e-6);
            total = losses.reduce((sum, { value, coefficient }) => add(sum, scale(value, coefficient)), loss);
          }
          total.backward();
        });
        const ours = gradientsByFile(model, folder);
        const wanted = [...expected.keys()].filter((key) => key.startsWith('gradient.'));
        expect(wanted.length).toBeGreaterThan(2);
        for (const key of wanted) {
          const difference = worst(ours.get(key.slice('gradient.'.length)) ?? [], value(key).toArray());
          expect(difference, key).toBeLessThan(1e-5);
        }
      }
      for (const tensor of expected.values()) tensor.dispose();
    },
  );

  it('knows its architectures by name', () => {
    expect(architectures.map(({ name }) => name)).toEqual([
      'LlamaForCausalLM',
      'MistralForCausalLM',
      'Qwen2ForCausalLM',
      'Qwen3ForCausalLM',
      'Phi3ForCausalLM',
      'GPT2LMHeadModel',
      'MixtralForCausalLM',
      'OlmoeForCausalLM',
      'Qwen2MoeForCausalLM',
      'Qwen3MoeForCausalLM',
      'Llama4ForCausalLM',
      'Llama4ForConditionalGeneration',
      'DeepseekV2ForCausalLM',
      'DeepseekV3ForCausalLM',
      'GptOssForCausalLM',
      'LibMoeForCausalLM',
    ]);
  });
});
