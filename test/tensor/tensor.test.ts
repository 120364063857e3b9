import { describe, expect, it } from 'vitest';
import { type Dtype, full, keep, memory, scope, Tensor, tensor, view, zeros } from '../../ts/tensor/index.ts';

describe('a tensor', () => {
  it('holds every dtype', () => {
    const dtypes: Dtype[] = ['f32', 'bf16', 'f64', 'f16', 'i32', 'i64', 'u8', 'bool'];
    for (const dtype of dtypes) {
      using t = tensor([0, 1, 1], [3], { dtype });
      expect(t.toArray(), dtype).toEqual([0, 1, 1]);
      using f = full([2], 1, { dtype });
      expect(f.toArray(), dtype).toEqual([1, 1]);
    }
  });

  it('rounds bf16 and f16 to nearest even and keeps NaN, infinity and subnormals', () => {
    using b = tensor([1 + 2 ** -8, 1 + 3 * 2 ** -8, Number.NaN, Number.POSITIVE_INFINITY, -0], [5], {
      dtype: 'bf16',
    });
    expect(b.toArray()).toEqual([1, 1 + 2 ** -6, Number.NaN, Number.POSITIVE_INFINITY, -0]);
    using h = tensor([1 + 2 ** -11, 1 + 3 * 2 ** -11, Number.NaN, 65520, 65519, 2 ** -24, 2 ** -26], [7], {
      dtype: 'f16',
    });
    expect(h.toArray()).toEqual([1, 1 + 2 ** -9, Number.NaN, Number.POSITIVE_INFINITY, 65504, 2 ** -24, 0]);
  });

  it('is written, viewed and read', async () => {
    using t = zeros([2, 3]);
    using row = view(t, [3], 3);
    row.write([1, 2, 3]);
    expect(Array.from((await t.read()) as Float32Array)).toEqual([0, 0, 0, 1, 2, 3]);
    expect(() => view(t, [3], 4)).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => row.write([1])).toThrow(/ERR_LIBMOE_SHAPE/);
  });

  it('keeps storage alive through a view', () => {
    const t = tensor([1, 2, 3]);
    using v = view(t, [2], 1);
    t.dispose();
    t.dispose();
    expect(v.toArray()).toEqual([2, 3]);
    expect(() => t.toArray()).toThrow(/ERR_LIBMOE_DISPOSED/);
  });

  it('refuses bad shapes, data and devices', () => {
    expect(() => zeros([-1])).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => zeros([1.5])).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => zeros([2 ** 30, 2 ** 30])).toThrow(/ERR_LIBMOE_/);
    expect(() => zeros([1, 1, 1, 1, 1, 1, 1, 1, 1])).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => tensor([1, 2], [3])).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => tensor(new Uint16Array(2))).toThrow(/ERR_LIBMOE_DTYPE/);
    expect(() => zeros([1], { device: 'cuda:3' })).toThrow(/ERR_LIBMOE_DEVICE/);
    expect(() => zeros([1], { device: 'gpu' as 'cpu' })).toThrow(/ERR_LIBMOE_DEVICE/);
    expect(() => zeros([1], { dtype: 'f8' as 'f32' })).toThrow(/ERR_LIBMOE_DTYPE/);
    using two = zeros([2]);
    expect(() => two.item()).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(memory().tensors).toBe(1);
  });

  it('takes nested arrays and their shape', () => {
    using t = tensor([
      [
        [1, 2],
        [3, 4],
      ],
      [
        [5, 6],
        [7, 8],
      ],
    ]);
    expect([t.shape, t.toArray()]).toEqual([
      [2, 2, 2],
      [1, 2, 3, 4, 5, 6, 7, 8],
    ]);
    using reshaped = tensor([[1, 2, 3]], [3, 1]);
    expect(reshaped.shape).toEqual([3, 1]);
    using none = tensor([[], []]);
    expect(none.shape).toEqual([2, 0]);
    for (const ragged of [
      [[1, 2], [3]],
      [[1], 2],
      [1, [2]],
      [[[1]], [2]],
      [[1], [[2]]],
    ]) {
      expect(() => tensor(ragged), JSON.stringify(ragged)).toThrow(/ERR_LIBMOE_SHAPE/);
    }
  });

  it('refuses what is no number, and what an integer dtype cannot hold', () => {
    const refused = (data: unknown, dtype?: Dtype) =>
      expect(
        () => tensor(data as number[], undefined, dtype && { dtype }),
        `${dtype} ${String(data)}`,
      ).toThrow(/^ERR_LIBMOE_ARGUMENT/);
    for (const data of ['a', ['a'], [undefined], [null], [{}], { length: 1 }, undefined, [['1']]])
      refused(data);
    refused(['a'], 'bf16');
    for (const dtype of ['i32', 'i64', 'u8', 'bool'] as const) {
      refused([1.5], dtype);
      refused([Number.NaN], dtype);
      refused([1, 2 ** 63], dtype);
      refused(new Float32Array([0.5]), dtype);
    }
    refused([2 ** 31], 'i32');
    refused([256], 'u8');
    expect(memory().tensors).toBe(0);
    using t = tensor([0, 1]);
    expect(() => t.write(['x'] as unknown as number[])).toThrow(/ERR_LIBMOE_SHAPE/);
    expect(() => t.write(['x', 'y'] as unknown as number[])).toThrow(/ERR_LIBMOE_ARGUMENT/);
    expect(t.toArray()).toEqual([0, 1]);
  });
});

describe('scope', () => {
  it('frees all but the result, nested and thrown through', () => {
    const kept = scope(() => {
      zeros([4]);
      const inner = scope(() => {
        zeros([4]);
        return { list: [tensor([1])], map: new Map([['a', tensor([2])]]) };
      });
      expect(memory().tensors).toBe(3);
      return inner.map.get('a')!;
    });
    expect(memory().tensors).toBe(1);
    kept.dispose();
    expect(() =>
      scope(() => {
        zeros([4]);
        throw new Error('x');
      }),
    ).toThrow('x');
    expect(memory().tensors).toBe(0);
  });

  it('works across await, side by side', async () => {
    const work = (value: number) =>
      scope(async () => {
        const t = tensor([value]);
        await new Promise((resolve) => setTimeout(resolve, 2));
        zeros([1]);
        expect(t.item()).toBe(value);
        return tensor([value * 2]);
      });
    const results = await Promise.all([work(1), work(2)]);
    expect(results.map((t) => t.item())).toEqual([2, 4]);
    expect(memory().tensors).toBe(2);
    for (const t of results) t.dispose();
  });

  it('lets keep() escape', () => {
    let held: Tensor | undefined;
    scope(() => {
      held = keep(zeros([2]));
    });
    expect(held).toBeInstanceOf(Tensor);
    expect(held?.toArray()).toEqual([0, 0]);
    held?.dispose();
  });

  it('leaves forgotten tensors to the garbage collector', async () => {
    (() => {
      for (let i = 0; i < 50; i += 1) zeros([8]);
    })();
    for (let i = 0; i < 50 && memory().tensors > 0; i += 1) {
      (globalThis as { gc?: () => void }).gc?.();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(memory().tensors).toBe(0);
  });
});
