import { describe, expect, it } from 'vitest';
import { native } from '../../ts/native/index.ts';
import { multiply, square as squared } from '../../ts/tensor/elementwise.ts';
import {
  checkpoint,
  emptyLike,
  enableGrad,
  memory,
  noGrad,
  parameter,
  record,
  scope,
  type Tensor,
  tensor,
} from '../../ts/tensor/index.ts';

const SQUARE = 6;
let forwards = 0;

/** A minimal op, so that these tests depend on the tape alone. */
function square(x: Tensor): Tensor {
  forwards += 1;
  const y = emptyLike(x);
  native().unary(SQUARE, x.handle, y.handle);
  record({
    name: 'square',
    inputs: [x],
    outputs: [y],
    saved: [x],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().unaryBackward(SQUARE, x.handle, dy!.handle, dx.handle);
      return [dx];
    },
  });
  return y;
}

function add(a: Tensor, b: Tensor): Tensor {
  const y = emptyLike(a);
  native().binary(0, a.handle, b.handle, y.handle);
  record({ name: 'add', inputs: [a, b], outputs: [y], backward: ([dy]) => [dy, dy] });
  return y;
}

describe('the tape', () => {
  it('accumulates through a graph that uses a tensor twice', () => {
    scope(() => {
      using x = parameter(tensor([3, -2], [2], { dtype: 'f64' }));
      const y = square(x);
      const z = add(add(y, square(y)), x); // x² + x⁴ + x
      z.backward(tensor([1, 1], [2], { dtype: 'f64' }));
      expect(x.grad?.toArray()).toEqual([2 * 3 + 4 * 27 + 1, 2 * -2 + 4 * -8 + 1]);
      x.grad?.dispose();
    });
    expect(memory().tensors).toBe(0);
  });

  it('adds to an existing gradient', () => {
    using x = parameter(tensor([3]));
    for (let i = 1; i <= 3; i += 1) {
      scope(() => square(x).backward());
      expect(x.grad?.item()).toBe(6 * i);
    }
    x.grad?.dispose();
  });

  it('gives the same gradient object to both inputs without adding into either', () => {
    using x = parameter(tensor([5]));
    scope(() => add(square(x), square(x)).backward());
    expect(x.grad?.item()).toBe(20);
    x.grad?.dispose();
    using a = parameter(tensor([5]));
    scope(() => {
      const s = square(a);
      add(add(s, s), s).backward();
    });
    expect(a.grad?.item()).toBe(30);
    a.grad?.dispose();
  });

  it('keeps what backward needs alive across a scope, and frees it afterwards', () => {
    using x = parameter(tensor([2]));
    scope(() => {
      const y = scope(() => square(square(x)));
      y.backward();
      expect(x.grad?.item()).toBe(32);
    });
    x.grad?.dispose();
    expect(memory().tensors).toBe(1);
  });

  it('records nothing under noGrad', () => {
    using x = parameter(tensor([2]));
    scope(() => {
      const y = noGrad(() => square(x));
      expect(() => y.backward()).toThrow(/ERR_LIBMOE_STATE/);
      const y2 = noGrad(() => enableGrad(() => square(x)));
      expect(y2.node).toBeDefined();
      y2.backward(); // an abandoned graph would hold x until it is garbage
    });
    x.grad?.dispose();
  });

  it('refuses a second walk and a missing start', () => {
    using x = parameter(tensor([2, 3]));
    scope(() => {
      const y = square(x);
      expect(() => y.backward()).toThrow(/ERR_LIBMOE_SHAPE/);
      y.backward(tensor([1, 1]));
      expect(() => y.backward(tensor([1, 1]))).toThrow(/ERR_LIBMOE_STATE/);
    });
    x.grad?.dispose();
  });

  it('accumulates gradients of bf16 leaves in f32', () => {
    using x = parameter(tensor([1.5], [1], { dtype: 'bf16' }));
    scope(() => square(x).backward());
    expect(x.grad?.dtype).toBe('f32');
    expect(x.grad?.item()).toBe(3);
    x.grad?.dispose();
  });

  it('lets go of what can be computed again, and has it there for all of its readers', () => {
    using x = parameter(tensor([1, -2, 0.5], [3], { dtype: 'f64' }));
    let fills = 0;
    /** x², which does not need to be kept. */
    const cheap = (x: Tensor): Tensor => {
      const y = emptyLike(x);
      const fill = () => {
        fills += 1;
        native().unary(SQUARE, x.handle, y.handle);
      };
      fill();
      record({
        ...{ name: 'cheap', inputs: [x], outputs: [y], saved: [x], again: fill },
        backward: ([dy]) => {
          const dx = emptyLike(x);
          native().unaryBackward(SQUARE, x.handle, dy!.handle, dx.handle);
          return [dx];
        },
      });
      return y;
    };
    // Two readers of (x²)², whose own operand is let go of as well.
    const sum = scope(() => {
      const fourth = cheap(cheap(x));
      return add(square(fourth), square(fourth));
    });
    const { tensors } = memory();
    expect([tensors, fills]).toEqual([2, 2]); // x and the sum
    scope(() => sum.backward(tensor([1, 1, 1], [3], { dtype: 'f64' })));
    expect(fills).toBe(4);
    expect(x.grad?.toArray()).toEqual([1, -2, 0.5].map((v) => 2 * 8 * v ** 7));
    x.grad?.dispose();
    x.grad = undefined;
    sum.dispose();
    // One that somebody still holds is not computed again.
    scope(() => {
      const y = cheap(x);
      square(y).backward(tensor([1, 1, 1], [3], { dtype: 'f64' }));
      expect([fills, y.toArray()]).toEqual([5, [1, 4, 0.25]]);
      x.grad?.dispose();
    });
  });

  it('computes again what another operation was declared over', () => {
    using x = parameter(tensor([0.5], [1], { dtype: 'f64' }));
    using k = parameter(tensor([3], [1], { dtype: 'f64' }));
    const loss = scope(() => {
      const r = squared(x);
      const z = multiply(r, k);
      // Declared too late for z to send it a gradient, but z still reads what r was made of.
      record({ name: 'through', inputs: [x], outputs: [r], backward: ([dy]) => [dy] });
      return z;
    });
    scope(() => loss.backward(tensor([1], [1], { dtype: 'f64' })));
    expect(k.grad?.item()).toBe(0.25);
    k.grad?.dispose();
    loss.dispose();
    x.release(); // backward never came to the square, which would keep x until the garbage collector does
  });

  it('computes a long chain again', () => {
    using x = parameter(tensor([1]));
    const end = scope(() => {
      let y: Tensor = x;
      for (let i = 0; i < 20_000; i += 1) y = squared(y);
      return y;
    });
    using _ = end;
    // Beyond its own error, 2 for every square.
    scope(() => end.backward(tensor([0])));
    expect(x.grad?.item()).toBe(0);
    x.grad?.dispose();
  });

  it('says when something cannot be computed again, and tries anew the next time', () => {
    using x = parameter(tensor([1, 2]));
    using k = parameter(tensor([1, 1]));
    let fails = true;
    const [first, second] = scope(() => {
      const y = emptyLike(x);
      const again = () => {
        if (fails) throw new Error('no memory');
        native().copy(y.handle, x.handle);
      };
      native().copy(y.handle, x.handle);
      record({ name: 'copy', inputs: [x], outputs: [y], saved: [x], again, backward: ([dy]) => [dy] });
      return [multiply(y, k), multiply(y, k)];
    });
    const ones = tensor([1, 1]);
    expect(() => scope(() => second!.backward(ones))).toThrow('no memory');
    fails = false;
    scope(() => first!.backward(ones));
    expect(k.grad?.toArray()).toEqual([1, 2]);
    for (const t of [first!, second!, ones, x.grad!, k.grad!]) t.dispose();
    const bad = () =>
      record({ name: 'own', inputs: [x], outputs: [k], saved: [k], again() {}, backward: () => [] });
    expect(bad).toThrow(/ERR_LIBMOE_ARGUMENT: own: "again" is for one output/);
  });

  it('hands a gradient on to the last of its readers alone', () => {
    scope(() => {
      using a = parameter(tensor([2], [1], { dtype: 'f64' }));
      const b = square(a);
      const c = square(a);
      // The gradient of the inner sum goes on to b and c, and b gets more of its own.
      const y = add(add(b, c), add(b, b));
      y.backward(tensor([1], [1], { dtype: 'f64' }));
      expect(a.grad?.toArray()).toEqual([16]);
      a.grad?.dispose();
    });
    expect(memory().tensors).toBe(0);
  });

  it('tells when the gradient of a leaf is complete', () => {
    using x = parameter(tensor([2]));
    const seen: number[] = [];
    x.onGradReady = (leaf) => seen.push(leaf.grad!.item());
    scope(() => add(square(x), square(square(x))).backward());
    expect(seen).toEqual([4 + 32]);
    x.grad?.dispose();
  });

  it.each([
    ['after it', (w: Tensor, part: Tensor) => add(part, square(w))],
    ['before it', (w: Tensor, part: Tensor) => add(square(w), part)],
    [
      'in two of them',
      (w: Tensor, part: Tensor) =>
        add(
          part,
          checkpoint((a) => add(square(a), w), [w]),
        ),
    ],
  ])('tells it once and not early when a recomputed part and an operation %s read the leaf', (_, join) => {
    using x = parameter(tensor([3]));
    using w = parameter(tensor([2]));
    const seen: number[] = [];
    w.onGradReady = (leaf) => seen.push(leaf.grad!.item());
    scope(() =>
      join(
        w,
        checkpoint((a) => square(add(a, square(w))), [square(x)]),
      ).backward(),
    );
    expect(seen).toEqual([w.grad!.item()]);
    expect(seen[0]).toBeGreaterThan(4 + 4); // both have come
    x.grad?.dispose();
    w.grad?.dispose();
  });
});

describe('checkpoint', () => {
  it('recomputes and gives the same gradient with fewer live tensors', () => {
    const run = (wrap: boolean) => {
      using x = parameter(tensor([1.1, -0.7], [2], { dtype: 'f64' }));
      using w = parameter(tensor([0.3, 0.4], [2], { dtype: 'f64' }));
      return scope(() => {
        const f = (a: Tensor) => square(add(square(square(a)), w));
        const before = forwards;
        const y = wrap ? checkpoint(f, [square(x)]) : scope(() => f(square(x)));
        const live = memory().tensors;
        y.backward(tensor([1, 2], [2], { dtype: 'f64' }));
        const result = { dx: x.grad!.toArray(), dw: w.grad!.toArray(), live, ran: forwards - before };
        x.grad?.dispose();
        w.grad?.dispose();
        return result;
      });
    };
    const plain = run(false);
    const saved = run(true);
    expect(saved.dx).toEqual(plain.dx);
    expect(saved.dw).toEqual(plain.dw);
    expect(saved.ran).toBe(plain.ran + 3);
    expect(saved.live).toBeLessThan(plain.live);
    expect(memory().tensors).toBe(0);
  });
});
