import type { Tokenizer } from '../data/index.ts';
import { type LanguageModel, type ModelBatch, packSequences } from '../models/language/index.ts';
import { ForwardContext } from '../moe/index.ts';
import { type Column, type ColumnArray, RecordWriter } from '../storage/index.ts';
import { noGrad, scope, type Tensor } from '../tensor/index.ts';
import type { Callback, Run } from '../training/index.ts';
import type { Recipe } from './language-recipe.ts';
import type { Prepared } from './prepare.ts';
import { documentsOf } from './sources.ts';

/** The tokens whose routing is recorded: the beginnings of the held-out texts, else of the training data. */
export interface RoutingProbe {
  batch: ModelBatch;
  /** Name of the held-out texts, or "train". */
  texts: string;
}

/** Takes up to `tokens` tokens, cut into sequences of the training's length. */
export async function routingProbe(
  recipe: Recipe,
  prepared: Prepared,
  tokens: number,
): Promise<RoutingProbe> {
  const { sequenceLength, heldOut } = recipe.data;
  const [name, source] = Object.entries(heldOut)[0] ?? [];
  const ids =
    source === undefined
      ? prepared.dataset.read(0, Math.min(tokens, prepared.dataset.length))
      : await beginningOf(documentsOf(source), prepared.tokenizer, tokens);
  const sequences: Int32Array[] = [];
  for (let at = 0; at < ids.length; at += sequenceLength)
    sequences.push(ids.subarray(at, at + sequenceLength));
  return { batch: packSequences(sequences), texts: name ?? 'train' };
}

async function beginningOf(
  documents: AsyncIterable<{ text: string }>,
  tokenizer: Tokenizer,
  tokens: number,
): Promise<Int32Array> {
  const ids: number[] = [];
  for await (const { text } of documents) {
    ids.push(...tokenizer.encode(text.slice(0, 20 * tokens)).subarray(0, tokens - ids.length));
    if (ids.length === tokens) break;
  }
  return Int32Array.from(ids);
}

/**
 * Appends what every router does with the same tokens to a record file (docs/routing-records.md): before the first step, every `every` steps,
 * after the last. Training takes no notice: the pass is one of its own, without gradients. A resumed run first cuts what came after its
 * checkpoint.
 */
export function routingLogger(
  model: LanguageModel,
  probe: RoutingProbe,
  file: string,
  every: number,
): Callback {
  let writer: RecordWriter | undefined;
  const record = async (run: Run): Promise<void> => {
    using context = new ForwardContext({ step: run.step, totalSteps: run.totalSteps, trace: true });
    model.eval();
    noGrad(() => scope(() => void model.forward(probe.batch, context)));
    for (const { layer, call, trace } of context.records) {
      if (!trace) continue;
      const columns: Record<string, Column> = {
        token: probe.batch.ids,
        experts: await column(trace.choices),
        weights: await column(trace.weights),
      };
      if (trace.probabilities) columns.probabilities = await column(trace.probabilities);
      writer?.append({ step: run.step, layer, call, texts: probe.texts }, columns);
    }
  };
  return {
    name: 'routing',
    async onStart(run) {
      writer = new RecordWriter(file);
      writer.truncate(({ attributes }) => Number(attributes.step) <= run.step && run.step > 0);
      if (run.step === 0) await record(run);
    },
    async onStep({ step }, run) {
      if (step % every === 0 || step === run.totalSteps) await record(run);
    },
    onCheckpoint() {
      writer?.sync();
    },
    close() {
      writer?.close();
      writer = undefined;
    },
  };
}

async function column(values: Tensor): Promise<Column> {
  return { data: (await values.read()) as ColumnArray, width: values.shape[1]! };
}
