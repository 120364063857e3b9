import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { buffer, Linear, Module } from '../../ts/nn/index.ts';
import { linear } from '../../ts/tensor/gemm.ts';
import { memory, ones, parameter, scope, type Tensor, tensor, zeros } from '../../ts/tensor/index.ts';

class Tied extends Module {
  readonly first = new Linear(3, 2, { bias: false });
  readonly layers = [new Linear(2, 2), new Linear(2, 2, { bias: false })];
  readonly scales: Tensor[] = [parameter(ones([2])), parameter(ones([3]))];
  again = this.first;
  counts = buffer(tensor([1, 2], [2], { dtype: 'i32' }));
  scratch = buffer(zeros([4]), { persistent: false });
  readonly label = 'not a tensor';
  absent?: Tensor;
}

const names = (map: ReadonlyMap<string, unknown>): string[] => [...map.keys()];

describe('Module', () => {
  it('finds parameters and buffers by reflection, each once, in the order of the fields', () => {
    using module = new Tied();
    expect(names(module.namedParameters())).toEqual([
      'first.weight',
      'layers.0.weight',
      'layers.0.bias',
      'layers.1.weight',
      'scales.0',
      'scales.1',
    ]);
    expect(names(module.namedBuffers())).toEqual(['counts', 'scratch']);
    expect(names(module.stateDict())).toContain('counts');
    expect(names(module.stateDict())).not.toContain('scratch');
    expect(module.parameterCount()).toBe(6 + 4 + 2 + 4 + 2 + 3);
    expect(names(module.namedModules())).toEqual(['', 'first', 'layers.0', 'layers.1']);
  });

  it('keeps a frozen parameter a parameter', () => {
    using module = new Linear(2, 2);
    module.setRequiresGrad(false);
    expect(names(module.namedParameters())).toEqual(['weight', 'bias']);
    expect(module.weight.requiresGrad).toBe(false);
  });

  it('switches the whole tree between training and evaluation', () => {
    using module = new Tied();
    expect(module.training).toBe(true);
    module.eval();
    expect(module.layers.map((layer) => layer.training)).toEqual([false, false]);
    module.train();
    expect(module.first.training).toBe(true);
  });

  it('loads a state dict, casting to its own dtype', () => {
    using from = new Linear(3, 2, { values: { seed: 1, name: 'a' }, dtype: 'f64' });
    using to = new Linear(3, 2, { values: { seed: 2, name: 'b' } });
    expect(to.weight.toArray()).not.toEqual(from.weight.toArray());
    expect(to.loadStateDict(from.stateDict())).toEqual({ missing: [], unexpected: [] });
    expect(to.weight.dtype).toBe('f32');
    expect(to.weight.toArray()).toEqual(from.weight.toArray().map(Math.fround));
  });

  it('names what does not fit and then loads nothing', () => {
    using module = new Linear(3, 2);
    const before = module.weight.toArray();
    using weight = ones([3, 2]);
    using extra = ones([1]);
    const state = new Map([
      ['weight', weight],
      ['gamma', extra],
    ]);
    const attempt = (): unknown => module.loadStateDict(state);
    expect(attempt).toThrow(/missing: bias/);
    expect(attempt).toThrow(/unexpected: gamma/);
    expect(attempt).toThrow(/weight \(expected \[2, 3\], got \[3, 2\]\)/);
    let code: unknown;
    try {
      attempt();
    } catch (error) {
      code = codeOf(error);
    }
    expect(code).toBe('ERR_LIBMOE_CHECKPOINT');
    expect(module.weight.toArray()).toEqual(before);
  });

  it('loads what there is when not strict, and says what was missing', () => {
    using module = new Linear(3, 2);
    using weight = ones([2, 3]);
    using extra = ones([1]);
    const state = new Map([
      ['weight', weight],
      ['gamma', extra],
    ]);
    expect(module.loadStateDict(state, { strict: false })).toEqual({
      missing: ['bias'],
      unexpected: ['gamma'],
    });
    expect(module.weight.toArray()).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it('casts parameters, keeps the dtype of buffers and the tie of tied modules', () => {
    using module = new Tied();
    module.first.weight.requiresGrad = false;
    const values = module.layers[0]!.weight.toArray();
    module.to({ dtype: 'f64' });
    expect(module.first.weight.dtype).toBe('f64');
    expect(module.first.weight.requiresGrad).toBe(false);
    expect(module.layers[0]!.weight.requiresGrad).toBe(true);
    expect(module.layers[0]!.weight.toArray()).toEqual(values);
    expect(module.again.weight).toBe(module.first.weight);
    expect(module.counts.dtype).toBe('i32');
    expect(module.scratch.dtype).toBe('f32');
    expect(names(module.namedBuffers())).toEqual(['counts', 'scratch']);
    expect(module.scales.map((scale) => scale.dtype)).toEqual(['f64', 'f64']);
  });

  it('keeps parameters across scopes and frees them with their gradients', () => {
    const before = memory().tensors;
    const module = scope(() => new Linear(3, 2));
    scope(() => {
      linear(ones([4, 3]), module.weight, module.bias).backward(ones([4, 2]));
    });
    expect(module.weight.grad?.toArray()).toEqual([4, 4, 4, 4, 4, 4]);
    module.zeroGrad();
    expect(module.weight.grad).toBeUndefined();
    module.dispose();
    expect(memory().tensors).toBe(before);
    expect(() => module.weight.readSync()).toThrow(/ERR_LIBMOE_DISPOSED/);
  });
});
