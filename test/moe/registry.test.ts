import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import {
  createRouter,
  ForwardContext,
  MoeLayer,
  Router,
  type RouterPlace,
  type Routing,
  registerRouter,
  routerNames,
  unregisterRouter,
} from '../../ts/moe/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { gate } from '../../ts/tensor/gating.ts';
import { linear } from '../../ts/tensor/gemm.ts';
import { parameter, scope, type Tensor, tensor, zeros } from '../../ts/tensor/index.ts';
import { leaveToCollector } from '../collected.ts';

leaveToCollector();

const place: RouterPlace = { width: 4, experts: 3, topK: 2, layer: 0, layers: 1, compat: 'fixed' };

/** A router as a user would write it. */
class Twice extends Router {
  weight: Tensor;
  constructor(readonly place: RouterPlace) {
    super();
    this.weight = parameter(zeros([place.experts, place.width]));
  }
  route(tokens: Tensor): Routing {
    const logits = linear(tokens, this.weight);
    const { experts, weights } = gate(logits, { topK: this.place.topK, score: 'sigmoid', weights: 'scores' });
    return { experts, weights, logits };
  }
}

const attempt = (fn: () => unknown): string => {
  try {
    fn();
    return 'accepted';
  } catch (error) {
    return `${codeOf(error)} ${(error as Error).message}`;
  }
};

describe('the router registry', () => {
  afterEach(() => {
    unregisterRouter('twice');
  });

  it('knows its own routers', () => {
    expect(routerNames()).toEqual(expect.arrayContaining(['sigmoid', 'smoe']));
  });

  it('takes a router from outside, which a layer then uses by name', () => {
    registerRouter('twice', { options: z.object({}), create: (_, at) => new Twice(at) });
    scope(() => {
      using layer = new MoeLayer({ router: 'twice', experts: 3, topK: 2, dModel: 4, expert: { hidden: 5 } });
      using context = new ForwardContext({ training: true });
      const out = layer.forward(tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 4]), context);
      expect(out.shape).toEqual([2, 4]);
      expect([...layer.namedParameters().keys()]).toEqual(['router.weight', 'experts.up', 'experts.down']);
      expect(context.losses()).toEqual([]);
    });
  });

  it('counts for a router that gives no statistics', async () => {
    registerRouter('twice', { options: z.object({}), create: (_, at) => new Twice(at) });
    using layer = new MoeLayer({
      router: 'twice',
      experts: 3,
      topK: 2,
      dModel: 4,
      expert: { hidden: 5 },
      capacityFactor: 0.75,
    });
    using context = new ForwardContext();
    scope(() => {
      layer.forward(tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 4]), context);
    });
    // All logits are 0: both tokens choose experts 0 and 1, which hold one choice each.
    expect(await context.records[0]!.read()).toMatchObject({
      tokens: 2,
      counts: [2, 2, 0],
      dropped: 2,
      entropy: Number.NaN,
    });
  });

  it('refuses names that are taken, malformed or unknown', () => {
    expect(
      attempt(() => registerRouter('smoe', { options: z.object({}), create: (_, at) => new Twice(at) })),
    ).toMatch(/ARGUMENT.*already/);
    expect(
      attempt(() => registerRouter('My Router', { options: z.object({}), create: (_, at) => new Twice(at) })),
    ).toMatch(/lower-case/);
    expect(attempt(() => createRouter('smo', {}, place))).toMatch(
      /ERR_LIBMOE_CONFIG.*"smo", did you mean "smoe"\?.*known: .*sigmoid/,
    );
    expect(attempt(() => createRouter('transformer', {}, place))).not.toMatch(/did you mean/);
  });

  it('refuses options and behaviours that a router does not have', () => {
    expect(attempt(() => createRouter('smoe', { balanceCoeficient: 1 }, place))).toMatch(
      /ERR_LIBMOE_CONFIG.*unknown key "balanceCoeficient", did you mean "balanceCoefficient"/,
    );
    expect(attempt(() => createRouter('smoe', { balanceCoefficient: -1 }, place))).toMatch(
      /ERR_LIBMOE_CONFIG.*balanceCoefficient/,
    );
    expect(attempt(() => createRouter('smoe', { balance: 'entropy' }, place))).toMatch(
      /ERR_LIBMOE_CONFIG.*balance/,
    );
    registerRouter('twice', { options: z.object({}), create: (_, at) => new Twice(at) });
    expect(attempt(() => createRouter('twice', {}, { ...place, compat: 'libmoe' }))).toMatch(
      /ERR_LIBMOE_CONFIG.*no compat "libmoe": choose fixed/,
    );
    expect(attempt(() => createRouter('twice', { k: 1 }, place))).toMatch(/unknown key "k".*known: none/);
  });
});
