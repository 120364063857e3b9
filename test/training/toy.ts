import type { TokenBatch } from '../../ts/data/batch.ts';
import type { ForwardContext } from '../../ts/moe/context.ts';
import { Module } from '../../ts/nn/module.ts';
import type { JsonValue } from '../../ts/storage/index.ts';
import { cast, multiply, square, subtract } from '../../ts/tensor/elementwise.ts';
import { embedding } from '../../ts/tensor/embedding.ts';
import { type Dtype, parameter, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';
import { mean } from '../../ts/tensor/reduction.ts';
import type { BatchSource, TrainableModel } from '../../ts/training/index.ts';

const [vocabulary, width] = [64, 32];

/** Learns to tell the next token's vector from this one's: an embedding, a gate and a second embedding. */
export class Toy extends Module implements TrainableModel<TokenBatch> {
  readonly input: Tensor;
  readonly gate: Tensor;
  readonly output: Tensor;
  /** What `afterStep` was told. */
  readonly #seen: number[] = [];

  constructor(dtype: Dtype = 'f32') {
    super();
    const draw = (shape: number[], stream: number) =>
      parameter(scope(() => cast(randn(shape, { seed: 1, stream }), dtype)));
    this.input = draw([vocabulary, width], 1);
    this.gate = draw([width], 2);
    this.output = draw([vocabulary, width], 3);
  }

  get seen(): readonly number[] {
    return this.#seen;
  }

  loss(batch: TokenBatch, context: ForwardContext): Tensor {
    const predicted = multiply(embedding(this.input, tensor(batch.ids)), this.gate);
    const wanted = embedding(this.output, tensor(batch.targets));
    context.addLoss('balance', 'gate', cast(mean(square(this.gate)), 'f32'), 0.01);
    return cast(mean(square(subtract(predicted, wanted))), 'f32');
  }

  afterStep({ step }: { step: number }): void {
    this.#seen.push(step);
  }
}

/** Pseudo-random batches of 4 sequences of 16 tokens, a function of their number alone. */
export class ToyData implements BatchSource<TokenBatch> {
  #position = 0;

  next(): TokenBatch {
    let x = (this.#position++ * 2654435761) >>> 0;
    const draw = () => {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      return x >>> 26;
    };
    return {
      ids: Int32Array.from({ length: 64 }, draw),
      targets: Int32Array.from({ length: 64 }, draw),
      sequenceOffsets: Int32Array.from([0, 16, 32, 48, 64]),
    };
  }

  state(): JsonValue {
    return { position: this.#position };
  }

  restore(state: JsonValue): void {
    this.#position = (state as { position: number }).position;
  }
}
