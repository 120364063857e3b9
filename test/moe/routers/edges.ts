import { expect } from 'vitest';
import { ForwardContext, MoeLayer, type RouterPlace } from '../../../ts/moe/index.ts';
import { add, multiply, scale } from '../../../ts/tensor/elementwise.ts';
import { parameter, scope, tensor } from '../../../ts/tensor/index.ts';
import { sum } from '../../../ts/tensor/reduction.ts';
import { waves } from './plain-numbers.ts';
import { made, tokensOf } from './routed.ts';

/** One token, as many choices as experts, one expert alone, masked tokens, tokens that are all alike or zero: finite, and in range. */
export function checkEdges(
  name: string,
  options: object = {},
  compat: RouterPlace['compat'] = 'fixed',
): void {
  const width = 6;
  for (const [experts, topK, count] of [
    [4, 2, 1],
    [3, 3, 5],
    [1, 1, 4],
    [4, 2, 5],
  ] as const)
    for (const kind of ['waves', 'alike', 'zero'] as const)
      scope(() => {
        using layer = new MoeLayer({
          router: { name, ...options },
          experts,
          topK,
          dModel: width,
          compat,
          expert: { hidden: 5 },
          dtype: 'f64',
        });
        const row = { waves: waves(count, width, 1), alike: waves(1, width, 1), zero: [0] }[kind];
        using x = parameter(
          tokensOf(
            Array.from({ length: count * width }, (_, i) => row[i % row.length]!),
            width,
          ),
        );
        const tokenMask =
          count > 1
            ? tensor(
                Array.from({ length: count }, (_, t) => (t === 1 ? 0 : 1)),
                [count],
                { dtype: 'bool' },
              )
            : undefined;
        using context = new ForwardContext({ training: true, step: 1, totalSteps: 4, tokenMask });
        const out = layer.forward(x, context);
        let total = sum(multiply(out, out));
        for (const { value, coefficient } of context.losses())
          total = add(total, scale(sum(value), coefficient));
        const at = `${name} ${compat} ${experts} experts, top ${topK}, ${count} ${kind}`;
        expect(Number.isFinite(total.item()), at).toBe(true);
        total.backward();
        for (const [field, value] of [...layer.namedParameters(), ['tokens', x] as const])
          for (const g of value.grad?.toArray() ?? [])
            expect(Number.isFinite(g), `${at}: ${field}`).toBe(true);
        if (count > 1) expect(out.toArray().slice(width, 2 * width)).toEqual(new Array(width).fill(0));
        layer.zeroGrad();
        x.grad?.dispose();
      });
}

/** The router refuses each of these behaviours, and says which it has. */
export function checkRefusal(name: string, compats: readonly RouterPlace['compat'][]): void {
  for (const compat of compats)
    expect(() => made(name, { experts: 3, topK: 1, compat })).toThrow(
      new RegExp(`ERR_LIBMOE_CONFIG.*"${name}" has no compat "${compat}"`),
    );
}
