import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { fileTensorsOf, layoutOf } from '../../ts/models/language/file-tensors.ts';
import {
  countParameters,
  KvCache,
  type LanguageModel,
  loadModel,
  packSequences,
  readConfig,
  saveModel,
} from '../../ts/models/language/index.ts';
import { ForwardContext } from '../../ts/moe/context.ts';
import { openSafetensors, readSafetensors } from '../../ts/storage/safetensors.ts';
import { noGrad, scope, type Tensor } from '../../ts/tensor/index.ts';

// Weights and expectations made by transformers: test/golden/language/make.py. Sequences of 40 and 23 tokens (padded to one batch there), and of 12:
// beyond the windows of 8 and the original lengths of 16.
const golden = fileURLToPath(new URL('../golden/language', import.meta.url));

/** Fields of config.json that say nothing about the numbers that a model computes, or that only transformers itself reads. */
const otherFields =
  /^(architectures|num_nextn_predict_layers|output_router_logits|router_(aux_loss_coef|jitter_noise)|transformers_version|use_cache|dtype|pretraining_tp|\w*dropout|\w+_pdrop|summary_\w+|add_cross_attention|scale_attn_\w+|reorder_and_upcast_attn)$/;

function worst(got: readonly number[], wanted: readonly number[]): number {
  expect(got.length).toBe(wanted.length);
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-families-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const logitsOf = (model: LanguageModel, sequences: readonly ArrayLike<number>[]): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(packSequences(sequences))).toArray()));

/** What every family of checkpoints of transformers is held to. */
export const familyAgrees = (name: string): void => {
  it('gives the logits, loss and gradients of transformers', async () => {
    const expected = readSafetensors(join(golden, name, 'expected.safetensors'));
    const value = (key: string): Tensor => expected.get(key)!;
    const batch = {
      ids: value('ids').readSync() as Int32Array,
      targets: value('targets').readSync() as Int32Array,
      sequenceOffsets: value('offsets').readSync() as Int32Array,
    };
    using model = await loadModel(join(golden, name));
    const { architecture } = readConfig(join(golden, name));
    scope(() => {
      const logits = noGrad(() => model.logits(model.forward(batch)));
      expect(worst(logits.toArray(), value('logits').toArray())).toBeLessThan(1e-4);
      using context = new ForwardContext({ training: false }); // or its losses would be left to the collector
      const loss = model.loss(batch, context);
      expect(Math.abs(loss.item() - value('loss').item())).toBeLessThan(1e-5);
      loss.backward();
      const gradients = fileTensorsOf(
        layoutOf(architecture, model.config),
        [...model.namedParameters()].map(([key, parameter]) => [key, parameter.grad!] as const),
      );
      const wanted = [...expected.keys()].filter((key) => key.startsWith('gradient.'));
      expect(wanted.length).toBeGreaterThan(1);
      for (const key of wanted) {
        const ours = gradients.get(key.slice('gradient.'.length))!;
        expect(ours.shape).toEqual(value(key).shape);
        expect(worst(ours.toArray(), value(key).toArray()), key).toBeLessThan(1e-4);
      }
    });
    for (const tensor of expected.values()) tensor.dispose();
  });

  it('in bf16 differs by rounding only', async () => {
    using exact = await loadModel(join(golden, name));
    using rounded = await loadModel(join(golden, name), { dtype: 'bf16' });
    const ids = [Array.from({ length: 40 }, (_, i) => (i * 5) % 50)];
    const [wanted, got] = [logitsOf(exact, ids), logitsOf(rounded, ids)];
    const norm = (values: readonly number[]): number => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
    const width = exact.config.vocabularySize;
    const errors = Array.from({ length: 40 }, (_, token) => {
      const row = wanted.slice(token * width, (token + 1) * width);
      return norm(row.map((value, i) => got[token * width + i]! - value)) / norm(row);
    });
    errors.sort((a, b) => a - b);
    expect(errors[0]).toBeGreaterThan(0);
    // A token whose scores are nearly equal may go to another expert.
    expect(errors[exact.config.moe === undefined ? 39 : 35]).toBeLessThan(0.1);
    expect(errors[20]).toBeLessThan(0.04);
  });

  it('continues from a cache with the same bits', async () => {
    using model = await loadModel(join(golden, name));
    const sequences = [40, 23].map((length, salt) =>
      Array.from({ length }, (_, i) => (i * i * 7 + i * 11 + salt * 13 + 3) % model.config.vocabularySize),
    );
    const whole = logitsOf(model, sequences);
    using cache = new KvCache(model.config, { blockSize: 4 });
    const ids = sequences.map(() => cache.add());
    const rows: number[][] = [[], []];
    for (const [from, to] of [
      [0, 17],
      [17, 18],
      [18, 23],
      [23, 24],
      [24, 40],
    ] as const) {
      const running = sequences.flatMap((sequence, i) => (from < sequence.length ? [i] : []));
      scope(() => {
        const hidden = model.forward(
          packSequences(running.map((i) => sequences[i]!.slice(from, to))),
          undefined,
          cache.at(running.map((i) => ids[i]!)),
        );
        const logits = noGrad(() => model.logits(hidden)).toArray();
        const width = (to - from) * model.config.vocabularySize;
        running.forEach((i, at) => {
          rows[i]!.push(...logits.slice(at * width, (at + 1) * width));
        });
      });
    }
    expect(rows.flat()).toEqual(whole);
  });

  it('is written as transformers wrote it, and its parameters are counted', async () => {
    using model = await loadModel(join(golden, name));
    expect(countParameters(model.config)).toBe(model.parameterCount());
    await saveModel(model, join(folder, 'm'));
    const [theirs, ours] = [openSafetensors(join(golden, name)), openSafetensors(join(folder, 'm'))];
    expect(ours.names().sort()).toEqual(theirs.names().sort());
    scope(() => {
      for (const tensor of theirs.names()) {
        expect(ours.entry(tensor).shape, tensor).toEqual(theirs.entry(tensor).shape);
        expect(ours.read(tensor).toArray(), tensor).toEqual(theirs.read(tensor).toArray());
      }
    });
    const [original, written] = [readConfig(join(golden, name)).json, readConfig(join(folder, 'm')).json];
    expect(written.architectures).toEqual(original.architectures);
    for (const [key, field] of Object.entries(original)) {
      if (!otherFields.test(key)) expect(written[key], key).toEqual(field);
    }
    // The fields alone, without our own block, mean the same model.
    const { architecture } = readConfig(join(golden, name));
    expect(architecture.read(written, 'config.json')).toEqual(architecture.read(original, 'config.json'));
    using again = await loadModel(join(folder, 'm'));
    expect(again.config).toEqual(model.config);
    const ids = [Array.from({ length: 40 }, (_, i) => (i * 5) % 50)];
    expect(logitsOf(again, ids)).toEqual(logitsOf(model, ids));
  });
};
