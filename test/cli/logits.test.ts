import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { readSafetensors } from '../../ts/storage/index.ts';
import type { Tensor } from '../../ts/tensor/index.ts';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-logits-'));
afterAll(() => rmSync(folder, { recursive: true }));
const golden = (family: string, file = ''): string =>
  path.join(root, 'test', 'golden', 'language', family, file);

function expected(family: string): { sequences: number[][]; logits: number[] } {
  const tensors = readSafetensors(golden(family, 'expected.safetensors'));
  const of = (key: string): number[] => tensors.get(key)!.toArray();
  const [ids, offsets, logits] = [of('ids'), of('offsets'), of('logits')];
  for (const t of tensors.values()) t.dispose();
  const sequences = offsets.slice(1).map((end, i) => ids.slice(offsets[i], end));
  return { sequences, logits };
}

function far(a: Tensor, b: readonly number[]): number {
  const values = a.toArray();
  expect(values.length).toBe(b.length);
  return values.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0);
}

it("logits writes transformers' logits, hidden states and routing", async () => {
  const { sequences, logits } = expected('mixtral');
  const tokens = path.join(folder, 'ids.json');
  writeFileSync(tokens, JSON.stringify(sequences.filter(({ length }) => length > 0)));
  const out = path.join(folder, 'out.safetensors');
  const args = ['--model', golden('mixtral'), '--tokens', tokens, '--out', out];
  const { code, stdout, stderr } = await libmoe(['logits', ...args, '--hidden', '--json']);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const count = sequences.flat().length;
  const tensors = readSafetensors(out);
  expect(JSON.parse(stdout)).toMatchObject({ out, tokens: count });
  expect([...tensors.keys()].sort()).toEqual([
    'hidden.0',
    'hidden.1',
    'logits',
    ...[0, 1].flatMap((l) => [`routing.${l}.experts`, `routing.${l}.weights`]),
  ]);
  expect(tensors.get('logits')!.dtype).toBe('f32');
  expect(far(tensors.get('logits')!, logits)).toBeLessThan(1e-5);
  expect(tensors.get('hidden.1')!.shape).toEqual([count, 32]);
  const experts = tensors.get('routing.1.experts')!;
  expect(experts.dtype).toBe('i32');
  expect(experts.shape).toEqual([count, 2]);
  expect(new Set(experts.toArray()).size).toBeGreaterThan(1);
  for (let t = 0; t < count; t++) {
    const [a = 0, b = 0] = tensors
      .get('routing.1.weights')!
      .toArray()
      .slice(2 * t, 2 * t + 2);
    expect(a + b).toBeCloseTo(1, 6);
  }
  for (const t of tensors.values()) t.dispose();
}, 60_000);

it('logits says what is wrong with its input', async () => {
  const bad = async (content: string): Promise<string> => {
    const tokens = path.join(folder, 'bad.json');
    writeFileSync(tokens, content);
    const out = path.join(folder, 'none.safetensors');
    const { code, stderr } = await libmoe([
      'logits',
      '--model',
      golden('llama'),
      '--tokens',
      tokens,
      '--out',
      out,
    ]);
    expect(code).toBe(2);
    return stderr;
  };
  expect(await bad('[1, "a"]')).toMatch(/ERR_LIBMOE_DATA.*must hold token ids/);
  expect(await bad('[1, 99999]')).toMatch(/ERR_LIBMOE_DATA/);
  expect(await bad('{')).toMatch(/ERR_LIBMOE_DATA.*is not JSON/);
}, 60_000);
