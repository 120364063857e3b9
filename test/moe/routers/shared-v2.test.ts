import { describe, expect, it } from 'vitest';
import { createRouter, MoeLayer } from '../../../ts/moe/index.ts';
import { codeOf } from '../../../ts/native/index.ts';
import { tensor } from '../../../ts/tensor/index.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients, made, near, read, rowsOf, softmaxOf, waves } from './pass.ts';

leaveToCollector();

const place = { experts: 5, topK: 2 };
const choices = [2, 3, 0, 1, 0, 4, 4, 3, 2, 3, 1, 2];

describe('shared-v2', () => {
  it('is the golden vector of LibMoE', () => {
    using router = routerWith('shared-v2', goldenLogits(5), { ...place, compat: 'libmoe' }, vision);
    const { experts, weights, losses } = read(router, () => oneHot(6));
    expect(experts).toEqual(choices);
    near(
      weights,
      [
        0.560818, 0.439182, 0.550007, 0.449993, 0.768023, 0.231977, 0.698676, 0.301324, 0.549943, 0.450057,
        0.725975, 0.274025,
      ],
      6,
    );
    expect(losses.balance).toBeCloseTo(1.044847, 6);
    expect(losses.routerZ).toBeCloseTo(6.137573, 5);
  });

  it('original leaves the probabilities undivided', () => {
    using router = routerWith('shared-v2', goldenLogits(5), { ...place, compat: 'original' });
    const p = rowsOf(goldenLogits(5), 5).map(softmaxOf);
    near(
      read(router, () => oneHot(6)).weights,
      choices.map((e, i) => p[Math.floor(i / 2)]![e]!),
    );
  });

  it('fixed counts all choices, libmoe in vision-language models the first', () => {
    const p = rowsOf(goldenLogits(5), 5).map(softmaxOf);
    const counts = Array.from({ length: 5 }, (_, e) => choices.filter((c) => c === e).length);
    const expected =
      5 * counts.reduce((a, c, e) => a + (c / 12) * (p.reduce((s, row) => s + row[e]!, 0) / 6), 0);
    using router = routerWith('shared-v2', goldenLogits(5), place, vision);
    expect(read(router, () => oneHot(6)).losses.balance).toBeCloseTo(expected, 9);
  });

  it('has the gradients', () => {
    for (const compat of ['fixed', 'libmoe', 'original'] as const) {
      using router = made('shared-v2', { ...place, compat }, { ...vision, init: { std: 0.5 } });
      const sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
      checkGradients(router, waves(7), { training: true, sequenceOffsets });
      sequenceOffsets.dispose();
    }
  });

  it('takes one token, all experts and a single expert', () => {
    using all = made('shared-v2', { experts: 3, topK: 3 });
    const { weights, experts } = read(all, () => tensor(waves(1), [1, 5], { dtype: 'f64' }));
    expect([...experts].sort()).toEqual([0, 1, 2]);
    expect(weights.reduce((a, w) => a + w, 0)).toBeCloseTo(1, 12);
    using one = made('shared-v2', { experts: 1, topK: 1 });
    expect(read(one, () => tensor(waves(2), [2, 5], { dtype: 'f64' })).weights).toEqual([1, 1]);
  });

  it('asks for a shared expert', () => {
    const options = { router: 'shared-v2', experts: 4, topK: 2, dModel: 4, expert: { hidden: 4 } };
    expect(attempt(() => new MoeLayer(options))).toMatch(/ERR_LIBMOE_CONFIG.*shared: \{ hidden \}/);
    using layer = new MoeLayer({ ...options, shared: { hidden: 4 } });
    expect(layer.shared).toBeDefined();
    expect(
      attempt(() =>
        createRouter(
          'shared-v2',
          { groups: 1 },
          { ...place, width: 4, layer: 0, layers: 1, compat: 'fixed' },
        ),
      ),
    ).toMatch(/unknown key "groups"/);
  });
});

const vision = { flavour: 'vision-language' };

function attempt(fn: () => unknown): string {
  try {
    fn();
    return 'accepted';
  } catch (error) {
    return `${codeOf(error)} ${(error as Error).message}`;
  }
}
