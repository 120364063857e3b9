import { describe, expect, it } from 'vitest';
import { LanguageModel, type LanguageModelOptions, takeOnly } from '../../ts/models/language/index.ts';
import { memory, setThreads, threads } from '../../ts/tensor/index.ts';
import { type UpcycleOptions, upcycleWithReport } from '../../ts/upcycling/index.ts';
import { tinyConfig, tinyModel } from '../models/tiny.ts';

const base: UpcycleOptions = { experts: 4, topK: 2 };
type State = Map<string, number[]>;
const stateOf = (model: LanguageModel): State =>
  new Map([...model.stateDict()].map(([name, t]) => [name, t.toArray()]));

function upcycled(options: Partial<UpcycleOptions>, config: LanguageModelOptions = tinyConfig) {
  using dense = tinyModel(config);
  const { model, report } = upcycleWithReport(dense, { ...base, ...options });
  const result = { state: stateOf(model), report, dense: stateOf(dense) };
  model.dispose();
  return result;
}
const router = ({ state }: { state: State }, layer: number): number[] =>
  state.get(`blocks.${layer}.moe.router.weight`)!;
const norms = (matrix: number[], width: number): number[] =>
  Array.from({ length: matrix.length / width }, (_, r) =>
    Math.hypot(...matrix.slice(r * width, (r + 1) * width)),
  );

describe('how routers start', () => {
  it('upcycled: by scheme and standard deviation', () => {
    const equal = upcycled({ initScheme: 'equal-norm', initStd: 0.05 });
    for (const norm of norms(router(equal, 1), 24)) expect(norm).toBeCloseTo(0.05 * Math.sqrt(24), 6);
    const w = router(upcycled({ initScheme: 'orthogonal', initStd: 0.05 }), 1);
    const angle = w.slice(0, 24).reduce((sum, x, i) => sum + x * w[24 + i]!, 0);
    expect(Math.abs(angle)).toBeLessThan(1e-7);
    const uniform = router(upcycled({ initScheme: 'kaiming-uniform' }), 0);
    expect(Math.max(...uniform.map(Math.abs))).toBeLessThanOrEqual(24 ** -0.5);
    expect(Math.max(...uniform.map(Math.abs))).toBeGreaterThan(0.9 * 24 ** -0.5);
    // What the router's own option says comes first.
    const own = upcycled({
      router: { name: 'smoe', init: { std: 0.5, scheme: 'equal-norm' } },
      initStd: 0.05,
    });
    for (const norm of norms(router(own, 0), 24)) expect(norm).toBeCloseTo(0.5 * Math.sqrt(24), 5);
  });

  it('by seeds of their own: layers of equal seed start alike, whatever the seed of the rest', () => {
    const alike = upcycled({ initSeeds: [5, 5, 6] });
    expect(router(alike, 0)).toEqual(router(alike, 1));
    expect(router(alike, 0)).not.toEqual(router(alike, 2));
    const counted = upcycled({ initSeeds: 5, seed: 9 });
    expect(router(counted, 0)).toEqual(router(alike, 0));
    expect(router(counted, 1)).toEqual(router(alike, 2));
    expect(() => upcycled({ initSeeds: [5, 5] })).toThrow(
      /ERR_LIBMOE_CONFIG.*seeds lists 2 layers.*the model has 3/,
    );
    expect(() => upcycled({ initSeeds: [5, 5, 6, 7] })).toThrow(
      /ERR_LIBMOE_CONFIG.*seeds lists 4 layers.*the model has 3/,
    );
    expect(() => upcycled({ initScheme: 'kaiming-uniform', initStd: 0.3 })).toThrow(
      /ERR_LIBMOE_CONFIG.*takes no initStd, got 0\.3/,
    );
  });

  it('in a new model, too', () => {
    const made = (init: object, name = 'smoe', seed = 1) => {
      const moe = { experts: 4, topK: 2, router: { name, init }, expert: { hidden: 8 } };
      using model = new LanguageModel({ ...tinyConfig, moe }, { seed });
      return { state: stateOf(model) };
    };
    const equal = made({ scheme: 'equal-norm' });
    for (const norm of norms(router(equal, 2), 24)) expect(norm).toBeCloseTo(0.3 * Math.sqrt(24), 5); // the model's std
    expect(router(made({ seeds: [1, 1, 2] }), 0)).toEqual(router(made({ seeds: 1 }, 'smoe', 3), 0));
    const alike = made({ seeds: [1, 1, 2], scheme: 'orthogonal', std: 0.1 }, 'moe++');
    expect(router(alike, 0)).toEqual(router(alike, 1));
    expect(router(alike, 0)).not.toEqual(router(alike, 2));
    expect(() => made({ seeds: [1, 2] })).toThrow(/ERR_LIBMOE_CONFIG.*seeds/);
    expect(() => made({ scheme: 'xavier' })).toThrow(/ERR_LIBMOE_CONFIG.*scheme/);
  });
});

describe('expert noise', () => {
  const expert = (state: State, e: number, which: 'up' | 'down'): number[] => {
    const all = state.get(`blocks.1.moe.experts.${which}`)!;
    return all.slice((e * all.length) / 4, ((e + 1) * all.length) / 4);
  };
  const denseOf = (state: State, which: 'up' | 'down'): number[] =>
    state.get(`blocks.1.feedForward.${which}`)!;
  const deviation = (values: number[]): number => {
    const mean = values.reduce((a, v) => a + v, 0) / values.length;
    return Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length);
  };

  it.each([true, false])(
    'draws the weights of exactly that share of hidden units anew (gated: %s)',
    (gated) => {
      const config = { ...tinyConfig, feedForward: { hidden: 40, gated, bias: true } };
      const { state, dense, report } = upcycled({ expertNoise: { reinitialise: 0.3 } }, config);
      expect(report.expertNoise).toEqual({ changed: 4, experts: 4, units: 12, hidden: 40 });
      expect(report.unlikeDense).toEqual(['expertNoise: the experts are no exact copies']);
      const up = denseOf(dense, 'up');
      const down = denseOf(dense, 'down');
      const changedUnits = [0, 1, 2, 3].map((e) => {
        const own = expert(state, e, 'up');
        const rows = Array.from({ length: own.length / 24 }, (_, r) =>
          own.slice(r * 24, (r + 1) * 24).some((v, i) => v !== up[r * 24 + i]),
        );
        const ownDown = expert(state, e, 'down');
        const columns = Array.from({ length: 40 }, (_, u) =>
          Array.from({ length: 24 }, (_, i) => ownDown[i * 40 + u] !== down[i * 40 + u]).some(Boolean),
        );
        // Gate, up and down of the same units.
        expect(rows.slice(0, 40)).toEqual(columns);
        if (gated) expect(rows.slice(40)).toEqual(columns);
        expect(columns.filter(Boolean)).toHaveLength(12);
        return columns.flatMap((changed, u) => (changed ? [u] : [])).join();
      });
      expect(new Set(changedUnits).size).toBe(4);
      expect(state.get('blocks.1.moe.experts.upBias')!.slice(0, up.length / 24)).toEqual(
        dense.get('blocks.1.feedForward.upBias'),
      );
      // New weights are as wide as the old.
      const fresh = upcycled({ expertNoise: { reinitialise: 1 } }, config).state;
      expect(deviation(expert(fresh, 2, 'down')) / deviation(down)).toBeCloseTo(1, 1);
    },
  );

  it('adds noise of the standard deviation asked for, and may leave the first expert alone', () => {
    const { state, dense, report } = upcycled({ expertNoise: { perturb: 0.2, keepFirst: true } });
    expect(report.expertNoise).toEqual({ changed: 3, experts: 4, units: 0, hidden: 40 });
    const up = denseOf(dense, 'up');
    expect(expert(state, 0, 'up')).toEqual(up);
    expect(expert(state, 0, 'down')).toEqual(denseOf(dense, 'down'));
    const added = (e: number) => expert(state, e, 'up').map((v, i) => v - up[i]!);
    expect(deviation(added(1)) / (0.2 * deviation(up))).toBeCloseTo(1, 1);
    expect(added(1)).not.toEqual(added(2));
  });

  it('has the same bits for the same seed, on any number of threads and beside more experts', () => {
    const options = { expertNoise: { reinitialise: 0.5, perturb: 0.1 }, seed: 3 };
    const before = threads();
    setThreads(1);
    const { state } = upcycled(options);
    setThreads(2);
    expect(upcycled(options).state).toEqual(state);
    setThreads(before);
    expect(upcycled({ ...options, seed: 4 }).state).not.toEqual(state);
    const more = upcycled({ ...options, experts: 6 }).state.get('blocks.1.moe.experts.up')!;
    const four = state.get('blocks.1.moe.experts.up')!;
    expect(more.slice(0, four.length)).toEqual(four);
    expect(() => upcycled({ expertNoise: {} })).toThrow(/ERR_LIBMOE_CONFIG.*set reinitialise.*perturb/);
  });

  it('refuses what would change nothing', () => {
    const refused = (expertNoise: object, experts: number, message: RegExp) =>
      expect(() => upcycled({ expertNoise, experts, topK: 1 })).toThrow(message);
    const tooSmall = /ERR_LIBMOE_CONFIG.*reinitialise 0\.01 of 40 hidden units.*set at least 0\.025/;
    refused({ reinitialise: 0.01 }, 4, tooSmall);
    refused({ reinitialise: 0.01, perturb: 0.1 }, 4, tooSmall);
    refused({ perturb: 0.1, keepFirst: true }, 1, /ERR_LIBMOE_CONFIG.*keepFirst.*only expert/);
    expect(upcycled({ expertNoise: { reinitialise: 0.025 } }).report.expertNoise!.units).toBe(1);
  });
});

describe('taking over a part', () => {
  it('upcycling takes only what the patterns name, and reports the rest', () => {
    const only = ['blocks.*.moe.shared.*', 'embedding.*'];
    const { state, dense, report } = upcycled({ shared: true, only, seed: 4 });
    expect(state.get('blocks.0.moe.shared.up')).toEqual(dense.get('blocks.0.feedForward.up'));
    expect(state.get('embedding.weight')).toEqual(dense.get('embedding.weight'));
    expect(report.copied).toEqual(['embedding.weight']);
    expect(report.replicated).toHaveLength(6);
    expect(report.leftOut).toContain('blocks.0.moe.experts.up');
    expect(report.unlikeDense).toEqual(['only: a part of the dense model was not taken over']);
    // The rest is that of a new model: drawn, and from the seed.
    const experts = state.get('blocks.0.moe.experts.up')!;
    expect(experts.slice(0, experts.length / 4)).not.toEqual(dense.get('blocks.0.feedForward.up'));
    expect(Math.hypot(...experts) / Math.sqrt(experts.length)).toBeCloseTo(0.3, 1);
    expect(upcycled({ shared: true, only, seed: 4 }).state).toEqual(state);
    expect(upcycled({ shared: true, only, seed: 5 }).state.get('blocks.0.moe.experts.up')).not.toEqual(
      experts,
    );
    const tensors = memory().tensors;
    expect(() => upcycled({ only: ['*.nothing'] })).toThrow(
      /ERR_LIBMOE_CONFIG.*"\*\.nothing" matches no tensor/,
    );
    expect(memory().tensors).toBe(tensors);
  });

  it("a trained mixture's shared expert among new routed ones", () => {
    const moe = {
      experts: 4,
      topK: 2,
      router: { name: 'shared-v3' },
      expert: { hidden: 8 },
      shared: { hidden: 8 },
    };
    using trained = new LanguageModel({ ...tinyConfig, moe }, { seed: 1 });
    trained.blocks[0]!.moe!.router.namedBuffers().get('selectionBias')!.write([1, 2, 3, 4]);
    const { model, drawn } = takeOnly(trained, ['*.moe.shared.*'], 2);
    using fresh = new LanguageModel({ ...tinyConfig, moe }, { seed: 2 });
    const [was, is, new_] = [stateOf(trained), stateOf(model), stateOf(fresh)];
    model.dispose();
    for (const [name, values] of is)
      expect(values, name).toEqual((name.includes('.moe.shared.') ? was : new_).get(name));
    expect(drawn).toHaveLength(is.size - 6);
  });
});
