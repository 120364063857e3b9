import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { LanguageModel, type LanguageModelOptions, packSequences } from '../../ts/models/language/index.ts';
import {
  ForwardContext,
  Router,
  type Routing,
  type RoutingContext,
  registerRouter,
  unregisterRouter,
} from '../../ts/moe/index.ts';
import { constant, type Initialiser } from '../../ts/nn/initialisers.ts';
import { noGrad, ones, scope, type Tensor, tensor, zeros } from '../../ts/tensor/index.ts';
import { upcycleWithReport } from '../../ts/upcycling/index.ts';
import { tinyConfig, tinyModel } from './tiny.ts';

/** What the router of each layer was told, in order. */
const told: { layer: number; ids: number[] }[] = [];

/** Sends token id i to expert i mod 4, which takes one token only. */
class ById extends Router {
  override readonly width: number;
  weight: Tensor;
  scale: Tensor;
  left: Tensor;

  constructor(width: number) {
    super();
    this.width = width;
    this.weight = zeros([4, width], { requiresGrad: true });
    this.scale = zeros([3], { requiresGrad: true });
    this.left = constantTensor(9);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    if (parameter === 'scale') return constant(7);
    return parameter === 'weight' ? rule : undefined;
  }

  route(_: Tensor, context: RoutingContext): Routing {
    const ids = context.tokenIds!.toArray();
    told.push({ layer: context.layer, ids });
    return {
      experts: tensor(
        Int32Array.from(ids, (id) => id % 4),
        [ids.length, 1],
      ),
      weights: ones([ids.length, 1]),
      capacity: 1,
    };
  }
}

const constantTensor = (value: number): Tensor => {
  const t = zeros([2], { requiresGrad: true });
  t.write([value, value]);
  return t;
};

const moe: LanguageModelOptions = {
  ...tinyConfig,
  moe: { experts: 4, topK: 1, router: { name: 'by-id' }, expert: { hidden: 8 }, shared: { hidden: 8 } },
};

describe('a router inside a language model', () => {
  beforeAll(() =>
    registerRouter('by-id', {
      options: z.strictObject({}),
      sharedExpert: true,
      create: (_, { width }) => new ById(width),
    }),
  );
  afterAll(() => void unregisterRouter('by-id'));

  it('learns the token ids, also when its block is computed again, and bounds its experts', () => {
    using model = new LanguageModel(moe, { seed: 1 });
    model.train();
    const batch = { ...packSequences([[5, 9, 2]]), targets: Int32Array.from([9, 2, 1]) };
    for (const again of [false, true]) {
      told.length = 0;
      model.activationCheckpointing = again;
      using context = new ForwardContext({ training: true });
      scope(() => model.loss(batch, context).backward());
      model.zeroGrad();
      expect(told.slice(0, 3)).toEqual([0, 1, 2].map((layer) => ({ layer, ids: [5, 9, 2] })));
      expect(told).toHaveLength(again ? 6 : 3);
      expect(told.every(({ ids }) => ids.join() === '5,9,2')).toBe(true);
    }
  });

  it('counts what its experts had no room for', async () => {
    using model = new LanguageModel(moe, { seed: 1 });
    using context = new ForwardContext();
    noGrad(() => scope(() => void model.forward(packSequences([[1, 5, 9, 2]]), context)));
    expect((await context.records[0]!.read()).dropped).toBe(2); // 1, 5 and 9 want expert 1
  });

  it('starts every parameter as the router says, each layer on its own', () => {
    using model = new LanguageModel(moe, { seed: 1 });
    const [a, b] = model.blocks.map(({ moe: layer }) => layer!.router as ById);
    expect(a!.scale.toArray()).toEqual([7, 7, 7]);
    expect(a!.left.toArray()).toEqual([9, 9]);
    expect(a!.weight.toArray().some((x) => x !== 0)).toBe(true);
    expect(a!.weight.toArray()).not.toEqual(b!.weight.toArray());
  });

  it('gets its shared expert by upcycling, and is refused without one', () => {
    using dense = tinyModel(tinyConfig);
    const { model, report } = upcycleWithReport(dense, { experts: 4, topK: 1, router: 'by-id' });
    try {
      expect(model.config.moe).toMatchObject({ shared: { hidden: 40 }, sharedMix: 'half' });
      expect(report.initialised.filter((name) => name.endsWith('.scale'))).toHaveLength(3);
      expect((model.blocks[2]!.moe!.router as ById).scale.toArray()).toEqual([7, 7, 7]);
    } finally {
      model.dispose();
    }
    const { shared: _, ...alone } = moe.moe!;
    expect(() => new LanguageModel({ ...moe, moe: alone }, { seed: 1 })).toThrow(
      /ERR_LIBMOE_CONFIG: .*router "by-id" works beside an expert that sees every token: set shared/,
    );
    expect(() => upcycleWithReport(dense, { experts: 4, topK: 1, router: 'by-id', shared: false })).toThrow(
      'set shared',
    );
  });
});
