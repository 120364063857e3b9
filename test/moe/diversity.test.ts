import { describe, expect, it } from 'vitest';
import { checkpointed, ForwardContext, MoeLayer, routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { noGrad, parameter, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { leaveToCollector } from '../collected.ts';
import { slope } from './golden-logits.ts';
import { waves } from './routers/plain-numbers.ts';

leaveToCollector();

const width = 6;
function layerOf(name: string, changes: object = {}, experts = 4): MoeLayer {
  return new MoeLayer({
    router: { name },
    experts,
    topK: 2,
    dModel: width,
    expert: { hidden: 5, activation: 'geluTanh' },
    dtype: 'f64',
    diversityCoefficient: 0.1,
    ...(routerDefinition(name).sharedExpert && { shared: { hidden: 5 } }),
    ...changes,
  });
}
const tokenIds = Int32Array.from([3, 1, 4, 1, 5, 9, 2]);

/** The diversity loss of a layer in one pass, handed to `use` with the context. */
function run<T>(
  layer: MoeLayer,
  x: Tensor,
  use: (loss: Tensor, context: ForwardContext) => T,
  recompute = false,
): T {
  return scope(() => {
    using context = new ForwardContext({ training: true, trace: true, tokenIds: tensor(tokenIds), seed: 3 });
    const forward = (c: ForwardContext, t: Tensor) => layer.forward(t, c);
    if (recompute) checkpointed(context, (inner, t) => forward(inner, t!), [x]);
    else forward(context, x);
    const loss = context.losses().find(({ name }) => name === 'diversity')!;
    expect(loss.coefficient).toBe(0.1);
    return use(loss.value, context);
  });
}

function clear(t: Tensor): void {
  t.grad?.dispose();
  t.grad = undefined;
}

/** The same from each expert by itself, one token at a time. */
function expected(layer: MoeLayer, x: number[], choices: number[], experts: number): number {
  const [up, down] = [
    layer.namedParameters().get('experts.up')!,
    layer.namedParameters().get('experts.down')!,
  ];
  const [a, b] = [up.toArray(), down.toArray()];
  const gelu = (v: number) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
  const answer = (e: number, token: number[]): number[] => {
    const hidden = Array.from({ length: 5 }, (_, h) =>
      gelu(token.reduce((sum, v, i) => sum + v * a[(e * 5 + h) * width + i]!, 0)),
    );
    return token.map((_, o) => hidden.reduce((sum, v, h) => sum + v * b[(e * width + o) * 5 + h]!, 0));
  };
  const k = choices.length / (x.length / width);
  let [total, pairs] = [0, 0];
  for (let t = 0; t < x.length / width; t += 1) {
    const token = x.slice(t * width, (t + 1) * width);
    const own = choices.slice(t * k, (t + 1) * k).filter((e) => e >= 0 && e < experts);
    const answers = own.map((e) => answer(e, token));
    for (const [i, p] of answers.entries())
      for (const [j, q] of answers.entries()) {
        if (own[i] === own[j]) continue;
        const dot = p.reduce((sum, v, c) => sum + v * q[c]!, 0);
        total += Math.max(0, dot / (Math.hypot(...p) * Math.hypot(...q)));
        pairs += 1;
      }
  }
  return total / Math.max(1, pairs);
}

describe.each(routerNames())('the diversity loss with %s', (name) => {
  it('is the mean cosine of the answers of each token, in value and gradient', () => {
    using layer = layerOf(name);
    // The experts that the layer sends to, whatever the router's own choices are.
    let sent: number[] = [];
    layer.routingTransform = (routing) => {
      sent = routing.experts.toArray();
      return { ...routing, capacity: undefined };
    };
    const values = waves(7, width);
    using x = parameter(tensor(values, [7, width], { dtype: 'f64' }));
    const value = run(layer, x, (loss) => {
      const item = loss.item();
      if (loss.requiresGrad) loss.backward();
      return item;
    });
    expect(value).toBeCloseTo(expected(layer, values, sent, 4), 9);
    const parameters = [['tokens', x] as const, ...layer.namedParameters()].filter(([n]) =>
      /tokens|experts/.test(n),
    );
    const gradients = parameters.map(([, t]) => t.grad?.toArray());
    const numeric = (t: Tensor, at: number) =>
      slope(t, at, () => noGrad(() => run(layer, x, (loss) => loss.item())));
    for (const [i, [field, t]] of parameters.entries())
      for (let at = 0; at < t.size; at += Math.ceil(t.size / 5))
        expect(gradients[i]?.[at] ?? 0, `${field} ${at}`).toBeCloseTo(numeric(t, at), 6);
    clear(x);
    layer.zeroGrad();
    // The same when the pass is computed again.
    const again = run(
      layer,
      x,
      (loss) => {
        if (loss.requiresGrad) loss.backward();
        return x.grad?.toArray();
      },
      true,
    );
    expect(again).toEqual(gradients[0]);
    clear(x);
    layer.zeroGrad();
  });
});

describe('the diversity loss', () => {
  it('is 1 for experts that are copies, and absent outside training, for one choice and for coefficient 0', () => {
    using layer = layerOf('smoe');
    const up = layer.namedParameters().get('experts.up')!;
    const down = layer.namedParameters().get('experts.down')!;
    for (const t of [up, down]) {
      const one = t.toArray().slice(0, t.size / 4);
      t.write([...one, ...one, ...one, ...one]);
    }
    using x = tensor(waves(7, width), [7, width], { dtype: 'f64' });
    expect(noGrad(() => run(layer, x, (loss) => loss.item()))).toBeCloseTo(1, 9);
    const names = (other: MoeLayer, training = true) =>
      noGrad(() =>
        scope(() => {
          using context = new ForwardContext({ training });
          other.forward(x, context);
          return context.losses().map((l) => l.name);
        }),
      );
    expect(names(layer, false)).not.toContain('diversity');
    using single = layerOf('smoe', { topK: 1 });
    expect(names(single)).not.toContain('diversity');
    using none = layerOf('smoe', { diversityCoefficient: 0 });
    expect(names(none)).not.toContain('diversity');
  });
});
