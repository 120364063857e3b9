import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { embedding } from '../../ts/tensor/embedding.ts';
import { defaultDevice, scope, synchronise, tensor, zeros } from '../../ts/tensor/index.ts';
import { gradientCheck } from './gradient-check.ts';
import { sample, withThreads } from './values.ts';

const ids = (list: number[], shape?: number[]) => tensor(Int32Array.from(list), shape);

describe('embedding', () => {
  it.each(['f32', 'bf16', 'f64'] as const)('takes rows of a %s table', (dtype) => {
    scope(() => {
      const weight = sample([5, 3], 1, dtype);
      const rows = weight.toArray();
      const y = embedding(weight, ids([4, 0, 4, 2], [2, 2]));
      expect(y.shape).toEqual([2, 2, 3]);
      expect(y.toArray()).toEqual([4, 0, 4, 2].flatMap((r) => rows.slice(3 * r, 3 * r + 3)));
      expect(embedding(weight, ids([])).shape).toEqual([0, 3]);
    });
  });

  it('has a gradient', () => {
    scope(() => {
      const list = ids([1, 3, 1, 1]);
      gradientCheck((w) => embedding(w, list), [sample([5, 17], 1, 'f64', true)]);
    });
  });

  it('sums duplicates in ascending position into an f32 gradient, adding over two passes', () => {
    scope(() => {
      const weight = sample([4, 3], 1, 'bf16');
      weight.requiresGrad = true;
      const list = [2, 0, 2, 2];
      const dy = sample([4, 3], 2, 'bf16');
      const g = dy.toArray();
      const expected = new Array<number>(12).fill(0);
      list.forEach((r, i) => {
        for (let c = 0; c < 3; c += 1)
          expected[3 * r + c] = Math.fround(expected[3 * r + c]! + g[3 * i + c]!);
      });
      embedding(weight, ids(list)).backward(dy);
      expect(weight.grad!.dtype).toBe('f32');
      expect(weight.grad!.toArray()).toEqual(expected);
      embedding(weight, ids(list)).backward(dy);
      expect(weight.grad!.toArray()).toEqual(expected.map((v) => Math.fround(v + v)));
      weight.grad!.dispose();
    });
  });

  it('gives the same bits with one thread and two', () => {
    scope(() => {
      const list = ids(Array.from({ length: 3000 }, (_, i) => (i % 4 === 0 ? 1 : (i * 17) % 50)));
      const dy = sample([3000, 301], 2, 'f32');
      const run = () => {
        const weight = zeros([50, 301], { requiresGrad: true });
        embedding(weight, list).backward(dy);
        const bits = Buffer.from(weight.grad!.readSync().buffer);
        weight.grad!.dispose();
        return bits;
      };
      expect(withThreads(2, run).equals(withThreads(1, run))).toBe(true);
    });
  });

  it('names an id outside the table', () => {
    scope(() => {
      const weight = zeros([5, 3]);
      for (const bad of [5, -1]) {
        let error: unknown;
        try {
          embedding(weight, ids([0, bad]));
          synchronise(); // a device learns of it when it is waited for
        } catch (e) {
          error = e;
        }
        expect(codeOf(error)).toBe('ERR_LIBMOE_ARGUMENT');
        expect(String(error)).toContain(
          defaultDevice() === 'cpu'
            ? `got ${bad} at position 1`
            : 'from 0 to 4; the value at position 1 is not',
        );
      }
      // Work goes on after it.
      expect(embedding(tensor([1, 2, 3, 4], [2, 2]), ids([1])).toArray()).toEqual([3, 4]);
      expect(() => embedding(weight, zeros([2]))).toThrow(/ERR_LIBMOE_DTYPE/);
      expect(() => embedding(zeros([5]), ids([0]))).toThrow(/ERR_LIBMOE_SHAPE/);
    });
  });
});
