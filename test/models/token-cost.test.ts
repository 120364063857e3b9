import { describe, expect, it } from 'vitest';
import { oneRouter, resolveLanguageModelConfig } from '../../ts/models/language/config.ts';
import { type LanguageModelOptions, parameterReport } from '../../ts/models/language/index.ts';
import { ForwardContext, routerDefinition, routerNames, tokenCost, withSlots } from '../../ts/moe/index.ts';
import { noGrad, scope, tensor } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';

const width = 16;
const experts = 8;
const topK = 2;
const place = { width, experts, topK, layer: 0, layers: 2, compat: 'fixed', shared: true } as const;

/** Mean number of experts that really compute for a token of a new router, in evaluation. */
function measured(name: string, options: object = {}, compat: 'fixed' | 'libmoe' = 'fixed'): number {
  const config = resolveLanguageModelConfig({
    ...model(name, options),
    moe: { ...model(name, options).moe!, compat },
  });
  using router = oneRouter(config.moe!, width, 2);
  return noGrad(() =>
    scope(() => {
      const count = 400;
      using context = new ForwardContext({
        tokenIds: tensor(Int32Array.from({ length: count }, (_, t) => t % 50)),
      });
      const tokens = randn([count, width], { seed: 5 });
      const routing = withSlots(router.route(tokens, context.routing(0)), count);
      return [...routing.experts.toArray()].filter((e) => e >= 0).length / count;
    }),
  );
}

const model = (name: string, options: object = {}): LanguageModelOptions => ({
  vocabularySize: 50,
  dModel: width,
  layers: 2,
  heads: 2,
  moe: {
    experts,
    topK,
    router: { name, ...options },
    expert: { hidden: 10 },
    ...(routerDefinition(name).sharedExpert && { shared: { hidden: 12 } }),
  },
});

const perExpert = 3 * width * 10;

describe('what a token costs', () => {
  for (const name of routerNames())
    it(`${name}: as many experts as really compute`, () => {
      const { experts: expected } = tokenCost(name, {}, place);
      // Of these a new router gives only the mean, or not the balance that training aims at.
      if (name === 'remoe') expect(Math.abs(measured(name) - experts / 2)).toBeLessThan(0.5);
      else if (name === 'moe++') expect(measured(name)).toBeLessThan(topK);
      else expect(measured(name)).toBe(expected);
    });

  it('moe++ counts experts with computation alone, at the balance of its loss', () => {
    // One zero, one copy and six constant experts; τ = 0.75.
    expect(tokenCost('moe++', {}, place).experts).toBeCloseTo((2 * 0.75 * 8) / (0.75 * 8 + 8), 12);
    const vision = { flavour: 'vision-language' };
    expect(tokenCost('moe++', vision, place).experts).toBeCloseTo((2 * 0.75 * 8) / (0.75 * 8 + 2), 12);
    // Without τ an even router is balanced, and a new one nearly even.
    const even = tokenCost('moe++', vision, { ...place, compat: 'libmoe' }).experts;
    expect(even).toBeCloseTo(1.6, 12);
    expect(Math.abs(measured('moe++', vision, 'libmoe') - even)).toBeLessThan(0.2);
  });

  it('remoe is held at topK, and without adaptation at what it is born with', () => {
    expect(tokenCost('remoe', {}, place).experts).toBe(2);
    expect(tokenCost('remoe', { sparsityFactor: 1 }, place).experts).toBe(4);
  });

  it('expert-choice follows its capacity, hyper its schedule', () => {
    expect(tokenCost('expert-choice', { capacityFactor: 3 }, place).experts).toBe(3);
    expect(measured('expert-choice', { capacityFactor: 3 })).toBe(3);
    expect(tokenCost('hyper', {}, { ...place, topK: 4 })).toMatchObject({ experts: 4, trainingExperts: 2.5 });
  });

  it('refuses what no router has', () => {
    expect(() => tokenCost('smoe', { tau: 1 }, place)).toThrow(/ERR_LIBMOE_CONFIG.*unknown key "tau"/);
    expect(() => tokenCost('dense', {}, { ...place, compat: 'libmoe' })).toThrow(/no compat "libmoe"/);
  });
});

describe('parameterReport of routers', () => {
  const smoe = parameterReport(model('smoe'));

  it('a dense mixture uses all of its parameters', () => {
    const report = parameterReport(model('dense'));
    expect(report.active).toBe(report.total);
    expect(report.flopsPerToken - smoe.flopsPerToken).toBe(3 * 2 * 2 * 6 * perExpert);
  });

  it('moe++ computes less than smoe, whose routers are smaller', () => {
    const report = parameterReport(model('moe++'));
    const each = (2 * 6) / 14;
    const routers = report.total - smoe.total;
    expect(report.active).toBe(Math.round(smoe.active + routers - 2 * (2 - each) * perExpert));
    expect(report.flopsPerToken).toBeCloseTo(
      smoe.flopsPerToken + 3 * 2 * (routers - 2 * (2 - each) * perExpert),
      6,
    );
  });

  it('of the hypernetwork a token pays for the matrix that it makes', () => {
    const report = parameterReport(model('hyper'));
    // Half an expert less, from 1 to topK = 2; the router as smoe's.
    expect(smoe.flopsPerToken - report.flopsPerToken).toBe(3 * 2 * 2 * 0.5 * perExpert);
    expect(report.active - smoe.active).toBe(2 * (width - experts * width));
  });

  it('hash and random routers cost nothing', () => {
    for (const name of ['hash', 'random'])
      expect(smoe.flopsPerToken - parameterReport(model(name)).flopsPerToken).toBe(
        3 * 2 * 2 * experts * width,
      );
  });

  it('a capacity below what is chosen bounds what is computed', () => {
    const moe = { ...model('smoe').moe!, capacityFactor: 0.5 };
    const report = parameterReport({ ...model('smoe'), moe });
    expect(smoe.active - report.active).toBe(2 * perExpert);
  });
});
