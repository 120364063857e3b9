import { ForwardContext } from '../../moe/index.ts';
import { cast } from '../../tensor/elementwise.ts';
import { keep, noGrad, scope, type Tensor } from '../../tensor/index.ts';
import type { LanguageModel } from './model.ts';
import { type InsertedRows, packSequences } from './packed-batch.ts';

/**
 * One forward pass, everything that another implementation can be compared with, in f32. Sequences are laid end to end; none sees another.
 * @param options `hidden`: also the hidden states and the routing of every layer; `inserted`: rows in the place of embeddings
 * @returns `logits` [tokens, vocabulary]; with `hidden` also `hidden.<layer>` [tokens, dModel], what block `layer` gives, and of MoE layers
 * `routing.<layer>.experts` i32 and `routing.<layer>.weights`, [tokens, choices]: outputs of the router (those without computation come after
 * the experts, −1 is none) and what each is weighted with. The caller frees them.
 * @throws ERR_LIBMOE_DATA for an empty sequence or unknown ids, ERR_LIBMOE_ARGUMENT for one longer than maxPositions
 */
export function rawForward(
  model: LanguageModel,
  sequences: readonly ArrayLike<number>[],
  options: { hidden?: boolean; inserted?: InsertedRows } = {},
): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  const wasTraining = model.training;
  const take = (name: string, t: Tensor): void => {
    found.set(name, keep(cast(t, 'f32')));
  };
  try {
    model.eval();
    noGrad(() =>
      scope(() => {
        const { hidden = false, inserted } = options;
        const batch = { ...packSequences(sequences), ...(inserted && { inserted }) };
        using context = new ForwardContext({
          trace: hidden,
          onLayer: (name, output) => {
            const layer = /^layer (\d+)$/.exec(name)?.[1];
            if (hidden && layer !== undefined) take(`hidden.${layer}`, output);
          },
        });
        take('logits', model.logits(model.forward(batch, context)));
        for (const { layer, trace } of context.records) {
          if (!trace) continue;
          found.set(`routing.${layer}.experts`, keep(cast(trace.choices, 'i32')));
          take(`routing.${layer}.weights`, trace.weights);
        }
      }),
    );
  } catch (error) {
    for (const t of found.values()) t.dispose();
    throw error;
  } finally {
    model.train(wasTraining);
  }
  return found;
}
