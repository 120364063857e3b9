import { describe, expect, it } from 'vitest';
import { createRouter, MoeLayer } from '../../../ts/moe/index.ts';
import { codeOf } from '../../../ts/native/index.ts';
import { tensor } from '../../../ts/tensor/index.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { best, near, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

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

  it('chooses from the groups with the best single expert', () => {
    const logits = goldenLogits(8);
    const choose = (options: object) => {
      using router = routerWith('shared-v2', logits, { experts: 8, topK: 3 }, options);
      return read(router, () => oneHot(6)).experts;
    };
    const expected = rowsOf(logits, 8).flatMap((row) => {
      const kept = best(
        [0, 1, 2, 3].map((g) => Math.max(row[2 * g]!, row[2 * g + 1]!)),
        2,
      );
      return best(
        row.map((x, i) => (kept.includes(Math.floor(i / 2)) ? x : -9)),
        3,
      );
    });
    expect(choose({ groups: { count: 4, kept: 2 } })).toEqual(expected);
    expect(choose({})).not.toEqual(expected);
    expect(() => made('shared-v2', { experts: 8, topK: 3 }, { groups: { count: 4, kept: 1 } })).toThrow(
      /ERR_LIBMOE_CONFIG.*"shared-v2": 1 groups of 2 experts hold fewer than topK 3/,
    );
    using grouped = made('shared-v2', { experts: 6, topK: 2 }, { groups: { count: 3, kept: 2 } });
    checkGradients(grouped, waves(7));
  });

  it('takes the balance loss per sequence, or over the batch', () => {
    const logits = [...goldenLogits(5), ...goldenLogits(5, 6, 0.5)];
    const p = rowsOf(logits, 5).map(softmaxOf);
    const loss = (tokens: readonly number[]): number =>
      p[0]!.reduce((total, _, e) => {
        const count = tokens.filter((t) => best(p[t]!, 2).includes(e)).length;
        const mean = tokens.reduce((s, t) => s + p[t]![e]!, 0) / tokens.length;
        return total + ((5 * count) / (2 * tokens.length)) * mean;
      }, 0);
    const [first, second] = [
      Array.from({ length: 4 }, (_, i) => i),
      Array.from({ length: 8 }, (_, i) => 4 + i),
    ];
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 12]));
    const balance = (options: object): number => {
      using router = routerWith('shared-v2', logits, place, options);
      return read(router, () => oneHot(12), { sequenceOffsets }).losses.balance!;
    };
    expect(balance({})).toBeCloseTo((loss(first) + loss(second)) / 2, 9);
    expect(balance({ balanceOver: 'batch' })).toBeCloseTo(loss([...first, ...second]), 9);
    expect(balance({})).not.toBeCloseTo(balance({ balanceOver: 'batch' }), 4);
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
      checkGradients(router, waves(7), { sequenceOffsets });
      sequenceOffsets.dispose();
    }
  });

  it('takes one token, all experts and a single expert', () => {
    using all = made('shared-v2', { experts: 3, topK: 3 });
    const { weights, experts } = read(all, waves(1));
    expect([...experts].sort()).toEqual([0, 1, 2]);
    expect(weights.reduce((a, w) => a + w, 0)).toBeCloseTo(1, 12);
    using one = made('shared-v2', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).weights).toEqual([1, 1]);
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
          { scaling: 2 },
          { ...place, width: 4, layer: 0, layers: 1, compat: 'fixed' },
        ),
      ),
    ).toMatch(/unknown key "scaling"/);
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
