import type { LanguageModel } from '../models/language/model.ts';
import { packSequences } from '../models/language/packed-batch.ts';
import type { EvalModel } from './model.ts';
import type { LanguageAdapterOptions } from './network.ts';
import { NetworkAdapter } from './network-adapter.ts';

/**
 * Lets evaluation ask a language model. Sequences are packed without padding, longest first; a question's context runs
 * once and its choices continue on forks of its keys and values; only scored positions meet the vocabulary. When memory
 * runs out a batch is halved and tried again. A request's score has the same bits in any batch.
 * @throws ERR_LIBMOE_ARGUMENT for sizes that are not positive integers or exceed the model's positions
 */
export function languageAdapter(model: LanguageModel, options: LanguageAdapterOptions): EvalModel {
  return new NetworkAdapter(
    {
      language: model,
      whole: model,
      forward: (sequences, cached, context) =>
        model.forward(packSequences(sequences.map(({ tokens }) => tokens)), context, cached),
    },
    options,
  );
}
