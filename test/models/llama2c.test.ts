import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { generate, loadLlama2c, loadModel, packSequences } from '../../ts/models/language/index.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';
import { developmentData } from '../development-data.ts';

const data = developmentData('weights/llama2c/stories260K.bin');
const file = join(data ?? '', 'weights/llama2c/stories260K.bin');

interface Golden {
  greedy_tokens: number[];
  logits_prompt: number[];
  logits_last_first16: number[];
  logits_last_argmax: number;
  logits_last_max: number;
}

describe.skipIf(data === undefined)('stories260K, a trained model', () => {
  it('writes the story of the float64 reference, with its logits', async () => {
    const golden = JSON.parse(readFileSync(join(data!, 'weights/llama2c/golden_f64.json'), 'utf8')) as Golden;
    using model = await loadModel(file);
    const logits = noGrad(() =>
      scope(() => model.logits(model.forward(packSequences([golden.logits_prompt]))).toArray()),
    ).slice(-512);
    golden.logits_last_first16.forEach((wanted, i) => {
      expect(Math.abs(logits[i]! - wanted)).toBeLessThan(2e-4);
    });
    expect(logits.indexOf(Math.max(...logits))).toBe(golden.logits_last_argmax);
    expect(Math.abs(Math.max(...logits) - golden.logits_last_max)).toBeLessThan(2e-4);

    const [first, ...rest] = golden.greedy_tokens;
    const made: number[] = [];
    for await (const { token } of generate(model, [first!], { maxTokens: rest.length })) made.push(token);
    expect(made).toEqual(rest);
  });

  it('names a truncated file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-llama2c-'));
    const cut = join(folder, 'cut.bin');
    writeFileSync(cut, readFileSync(file).subarray(0, 100_000));
    expect(() => loadLlama2c(cut)).toThrow(/ERR_LIBMOE_CHECKPOINT.*should have 1056540 bytes.*has 100000/);
    rmSync(folder, { recursive: true });
  });
});

describe('llama2.c files', () => {
  it('that are not one are refused', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-llama2c-'));
    const wrong = join(folder, 'wrong.bin');
    writeFileSync(wrong, 'this is a text and no checkpoint at all');
    await expect(loadModel(wrong)).rejects.toThrow(/ERR_LIBMOE_CHECKPOINT.*not a llama2.c checkpoint/);
    await expect(loadModel(join(folder, 'absent.bin'))).rejects.toThrow(/ERR_LIBMOE_FILE.*no checkpoint at/);
    rmSync(folder, { recursive: true });
  });
});
