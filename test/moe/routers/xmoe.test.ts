import { describe, expect, it } from 'vitest';
import type { Router } from '../../../ts/moe/index.ts';
import { type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { checkEdges } from './edges.ts';
import { acrossRows, checkGradients } from './gradients.ts';
import { dot, near, normOf, rowsOf, softmaxOf, softmaxRouting, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

type Xmoe = Router & { projection: Tensor; embeddings: Tensor; logTemperature?: Tensor };

/** Appendix A: u[t, j] = sin(0.9 t + j), e[i, j] = cos(0.5 i + 1.1 j); the projection is the identity. */
const goldenTokens = Array.from({ length: 18 }, (_, n) => Math.sin(0.9 * Math.floor(n / 3) + (n % 3)));
function golden(compat: 'fixed' | 'libmoe', options: object = {}): Xmoe {
  const place = { width: 3, experts: 6, topK: 3, compat };
  const router = made<Xmoe>('xmoe', place, { flavour: 'vision-language', projection: 3, ...options });
  router.projection.write([1, 0, 0, 0, 1, 0, 0, 0, 1]);
  router.embeddings.write(
    Array.from({ length: 18 }, (_, n) => Math.cos(0.5 * Math.floor(n / 3) + 1.1 * (n % 3))),
  );
  return router;
}
const goldenChoices = [0, 5, 1, 0, 1, 2, 0, 1, 2, 2, 3, 1, 4, 3, 5, 5, 4, 3];

const place = { width: 6, experts: 5, topK: 2 };
const x = waves(7, 6, 1);

/** norm · cosine of every projected token with every embedding. */
const scoresOf = (router: Xmoe, norm = 1.5): number[][] => {
  const compared = router.projection.shape[0]!;
  const embeddings = rowsOf(router.embeddings.toArray(), compared);
  return rowsOf(x, 6).map((t) => {
    const u = rowsOf(router.projection.toArray(), 6).map((row) => dot(row, t));
    return embeddings.map((e) => (norm * dot(u, e)) / (normOf(u) * normOf(e)));
  });
};
const divided = (rows: number[][], by: number) => rows.map((row) => row.map((s) => s / by));

describe('golden vectors', () => {
  it('as LibMoE computes it in vision-language layers', () => {
    using router = golden('libmoe');
    const { experts, weights, logits, losses } = read(router, goldenTokens);
    near(
      logits.slice(0, 6).map((l) => l * 0.3),
      [-0.149114, -0.813351, -1.298677, -1.495984, -1.310951, -0.77107],
      5,
    );
    expect(experts).toEqual(goldenChoices);
    near(
      weights,
      [
        0.497901, 0.25266, 0.249439, 0.528889, 0.247746, 0.223366, 0.398963, 0.341905, 0.259132, 0.374806,
        0.324288, 0.300906, 0.384186, 0.319502, 0.296312, 0.491269, 0.2774, 0.23133,
      ],
      5,
    );
    expect(losses.balance).toBeCloseTo(1.508481, 5);
    expect(losses.routerZ).toBeCloseTo(5.315867, 5);
  });

  it('fixed: probabilities divided by their sum, z loss of the divided logits', () => {
    using router = golden('fixed');
    const { experts, weights, logits, losses } = read(router, goldenTokens);
    expect(experts).toEqual(goldenChoices);
    near(
      weights,
      [
        0.809695, 0.101847, 0.088458, 0.874339, 0.114712, 0.010948, 0.530809, 0.374746, 0.094445, 0.467867,
        0.307511, 0.224622, 0.491191, 0.294583, 0.214226, 0.77581, 0.203091, 0.021098,
      ],
      5,
    );
    near(softmaxOf(logits.slice(0, 6)), [0.775959, 0.084773, 0.016814, 0.008711, 0.01614, 0.097603], 5);
    const want = softmaxRouting(rowsOf(logits, 6), 3);
    expect(losses.balance).toBeCloseTo(want.balance(3), 9);
    expect(losses.routerZ).toBeCloseTo(want.z, 9);
    expect(losses.routerZ).not.toBeCloseTo(5.315867, 1);
  });
});

describe('xmoe', () => {
  it('fixed: 16 dimensions, a temperature that is learnt and stays above its floor', () => {
    using router = made<Xmoe>('xmoe', place);
    expect(router.projection.shape).toEqual([16, 6]);
    near(router.logTemperature!.toArray(), [Math.log(0.3)], 6);
    for (const [log, temperature] of [
      [Math.log(0.3), 0.3],
      [-1, Math.exp(-1)],
      [-9, 0.01],
    ] as const) {
      router.logTemperature!.write([log]);
      const want = softmaxRouting(divided(scoresOf(router), temperature), 2);
      const got = read(router, x);
      expect(got.experts).toEqual(want.experts);
      near(got.weights, want.weights);
    }
  });

  it('libmoe, language: the gate runs on the probabilities as if they were logits', () => {
    for (const score of ['softmax', 'sigmoid'] as const) {
      using router = made<Xmoe>(
        'xmoe',
        { ...place, experts: 16, topK: 8, compat: 'libmoe' },
        { score, balance: 'global', balanceCoefficient: 1 },
      );
      expect(router.projection.shape).toEqual([8, 6]);
      expect(router.logTemperature).toBeUndefined();
      const p = divided(scoresOf(router), 0.3).map(softmaxOf);
      const got = read(router, x);
      const weight = (v: number) => (score === 'sigmoid' ? 1 / (1 + Math.exp(-v)) : Math.exp(v));
      const wanted = rowsOf(got.experts, 8).flatMap((chosen, t) => {
        const w = chosen.map((e) => weight(p[t]![e]!));
        return w.map((v) => v / w.reduce((a, b) => a + b, 0));
      });
      near(got.weights, wanted);
      expect(softmaxRouting(p, 8).experts).toEqual(got.experts);
      // All but uniform, so the loss is stuck near -ln 16.
      expect(Math.max(...got.weights)).toBeLessThan(0.25);
      expect(got.losses.balance).toBeCloseTo(-Math.log(16), 2);
      const mean = softmaxOfMean(p.map(softmaxOf));
      expect(got.losses.balance).toBeCloseTo(
        mean.reduce((a, v) => a + v * Math.log(v), 0),
        9,
      );
    }
  });

  it('original: cosines, weights as probabilities, balance with the first temperature', () => {
    using router = made<Xmoe>('xmoe', { ...place, compat: 'original' });
    expect(router.projection.shape).toEqual([2, 6]);
    router.logTemperature!.write([Math.log(0.5)]);
    const p = divided(scoresOf(router, 1), 0.5).map(softmaxOf);
    const got = read(router, x);
    near(
      got.weights,
      got.experts.map((e, i) => p[Math.floor(i / 2)]![e]!),
    );
    const steady = softmaxRouting(divided(scoresOf(router, 1), 0.3), 2);
    expect(got.experts).toEqual(steady.experts);
    expect(got.losses.balance).toBeCloseTo(steady.balance(2), 6);
  });

  it('has right gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 3, 6]));
    const losses = { balanceCoefficient: 1, zCoefficient: 0.3, init: { std: 0.5 } };
    for (const [compat, options] of [
      ['fixed', {}],
      ['fixed', { score: 'sigmoid', temperature: 0.5, balance: 'step' }],
      ['original', {}],
      ['libmoe', { flavour: 'vision-language', projection: 3 }],
      ['libmoe', { score: 'softmax', projection: 3 }],
      ['libmoe', { score: 'sigmoid', projection: 3 }],
    ] as const) {
      using router = made('xmoe', { ...place, compat }, { ...losses, ...options });
      checkGradients(router, waves(6, 6, 1), {
        sequenceOffsets,
        adjust: (name, gradient, parameter) =>
          compat === 'libmoe' && name === 'embeddings' ? acrossRows(gradient, parameter) : gradient,
      });
    }
  });

  it('libmoe: embeddings go back to norm 1.5 after a step; other behaviours leave them', () => {
    for (const compat of ['libmoe', 'fixed'] as const) {
      using router = made<Xmoe>('xmoe', { ...place, compat });
      const step = { counts: [], tokens: 0, step: 1, totalSteps: 1, layers: new Map() };
      const width = router.embeddings.shape[1]!;
      const norms = () => rowsOf(router.embeddings.toArray(), width).map(normOf);
      near(norms(), [1.5, 1.5, 1.5, 1.5, 1.5], 6);
      router.embeddings.write(router.embeddings.toArray().map((v) => v * 2));
      const before = read(router, x).weights;
      router.afterStep!(step);
      near(norms(), new Array(5).fill(compat === 'libmoe' ? 1.5 : 3), 6);
      near(read(router, x).weights, before);
    }
  });

  it('starts every layer from its own numbers, but in libmoe’s vision-language layers', () => {
    const start = (compat: 'fixed' | 'libmoe', layer: number) => {
      const at = { ...place, compat, layer, layers: 2 };
      using router = made<Xmoe>('xmoe', at, { flavour: 'vision-language' });
      return [router.embeddings.toArray(), router.projection.toArray()];
    };
    expect(start('libmoe', 0)[0]).toEqual(start('libmoe', 1)[0]);
    expect(start('libmoe', 0)[1]).not.toEqual(start('libmoe', 1)[1]);
    for (const part of [0, 1]) expect(start('fixed', 0)[part]).not.toEqual(start('fixed', 1)[part]);
    expect(start('fixed', 1)).toEqual(start('fixed', 1));
  });

  it('survives the edges, and refuses what it does not have', () => {
    for (const compat of ['fixed', 'libmoe', 'original'] as const)
      for (const flavour of ['language', 'vision-language']) checkEdges('xmoe', { flavour }, compat);
    expect(() =>
      made('xmoe', { ...place, compat: 'libmoe' }, { flavour: 'vision-language', score: 'sigmoid' }),
    ).toThrow(/ERR_LIBMOE_CONFIG.*no sigmoid/);
    expect(() => made('xmoe', place, { temperature: 0 })).toThrow(/ERR_LIBMOE_CONFIG.*temperature/);
  });
});

function softmaxOfMean(rows: number[][]): number[] {
  return rows[0]!.map((_, i) => rows.reduce((a, row) => a + row[i]!, 0) / rows.length);
}
