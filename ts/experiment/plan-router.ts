import { oneRouter } from '../models/language/config.ts';
import { moeLayersOf } from '../models/language/index.ts';
import type { MoeSizes } from '../models/language/parameters.ts';
import { dispatchLocally, ForwardContext, withSlots } from '../moe/index.ts';
import { add, cast } from '../tensor/elementwise.ts';
import { memory, scope, type Tensor, tensor } from '../tensor/index.ts';
import { randn } from '../tensor/random.ts';
import { sum } from '../tensor/reduction.ts';

/** What routing a token takes. */
export interface RouterOnProbe {
  /** What the tape keeps of it. */
  bytesPerToken: number;
  /** Rows of the experts' products: choices that are sent to experts. */
  choicesPerToken: number;
  /** Numbers of state that are no parameters. */
  buffers: number;
}

/**
 * Runs a router of a model on a few random tokens and looks at what it leaves: no formula has to know it. Choices are those at the first step
 * or at the last, whichever are more.
 * @param config without a vocabulary the rows have no token ids, as those of images
 */
export function routerOnProbe(
  config: MoeSizes & { vocabularySize?: number },
  dtype: 'f32' | 'bf16',
  steps: number,
): RouterOnProbe {
  const [layer] = moeLayersOf(config);
  const moe = config.moe!;
  using router = oneRouter(moe, config.dModel, config.layers, layer);
  const probe = (tokens: number, step: number): { bytes: number; choices: number } => {
    const { dModel, vocabularySize } = config;
    using ids =
      vocabularySize === undefined
        ? undefined
        : tensor(Int32Array.from({ length: tokens }, (_, t) => (7 * t) % vocabularySize));
    using sequenceOffsets = tensor(Int32Array.from([0, tokens]));
    using x = scope(() => cast(randn([tokens, dModel], { seed: 1 }), dtype));
    using context = new ForwardContext({
      training: true,
      step,
      totalSteps: steps,
      ...(ids && { tokenIds: ids }),
      sequenceOffsets,
    });
    const before = memory().bytes;
    let choices = 0;
    const total = scope(() => {
      const routing = withSlots(router.route(x, context.routing(layer!)), tokens);
      for (const loss of routing.losses ?? []) context.addRoutingLoss('probe', loss);
      const { experts, topK, capacityFactor } = moe;
      choices = dispatchLocally(routing, { experts, topK, capacityFactor, capacity: routing.capacity }).rows
        .size;
      const parts: Tensor[] = context.losses().map(({ value }) => value);
      for (const t of [routing.weights, routing.extra]) if (t) parts.push(cast(sum(t), 'f32'));
      return parts.reduce((a, b) => add(a, b));
    });
    const bytes = memory().bytes - before;
    // Walking the graph frees it.
    if (total.requiresGrad) total.backward();
    total.dispose();
    router.zeroGrad();
    return { bytes, choices: choices / tokens };
  };
  const [few, many] = [64, 192];
  const least = probe(few, 0);
  const most = probe(many, Math.max(0, steps - 1));
  const first = probe(many, 0);
  return {
    bytesPerToken: (Math.max(first.bytes, most.bytes) - least.bytes) / (many - few),
    choicesPerToken: Math.max(first.choices, most.choices),
    buffers: [...router.namedBuffers().values()].reduce((all, { size }) => all + size, 0),
  };
}
