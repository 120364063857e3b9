import { data, LanguageModel, optim, schedules, train } from 'libmoe';

// A toy language with a rule to learn: a token follows from the two before it.
const tokens = new Int32Array(20_000);
for (let i = 2; i < tokens.length; i += 1) tokens[i] = (3 * tokens[i - 1]! + tokens[i - 2]! + 1) % 31;

const expert = { hidden: 128, activation: 'silu', gated: true } as const;
const model = new LanguageModel({
  vocabularySize: 32,
  dModel: 64,
  layers: 2,
  heads: 4,
  feedForward: expert,
  moe: { experts: 8, topK: 2, router: { name: 'smoe' }, expert },
});
const steps = 60;
const training = train(model, {
  data: new data.PackedLoader(data.tokenDataset(tokens), { sequenceLength: 64, batchSequences: 8 }),
  optimizer: optim.optimizer(model.namedParameters(), { name: 'adamw' }),
  schedule: schedules.schedule({ name: 'cosine', learningRate: 3e-3 }, steps),
  steps,
});
for await (const { step, loss, routing } of training) {
  if (step % 20 === 0) console.log(`step ${step}  loss ${loss.toFixed(4)}`, routing);
  if (step === steps) console.log(`last loss ${loss}`);
}
