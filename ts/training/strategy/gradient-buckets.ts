import type { ProcessGroup, Work } from '../../distributed/index.ts';
import { gradientDtype } from '../../tensor/dtype.ts';
import { keep, noGrad, scope, type Tensor, tensor, view, zeros } from '../../tensor/index.ts';
import { cat } from '../../tensor/shape.ts';

/** Parameters whose gradients travel together. */
interface Bucket {
  readonly parameters: readonly Tensor[];
  /** Those whose gradients are not complete yet. */
  readonly waiting: Set<Tensor>;
  sent?: Sent;
}

interface Sent {
  /** All gradients end to end, then one number per parameter: how many ranks have a gradient of it. */
  readonly flat: Tensor;
  /** What each parameter had when the bucket left. */
  readonly had: readonly boolean[];
  readonly work: Work;
}

/**
 * The gradients of one step on their way to all ranks: laid end to end in buckets, in the reverse order of the parameters, which is about the
 * one in which backward completes them. A bucket leaves when all its gradients are complete, and after the one before it, so that every rank
 * sends the same buckets in the same order. From then on the parameters' gradients are views of the bucket.
 */
export class GradientBuckets {
  readonly #group: ProcessGroup;
  readonly #buckets: Bucket[] = [];
  readonly #home = new Map<Tensor, Bucket>();
  /** Buckets before this one have left. */
  #next = 0;

  /** @param bytes how much a bucket holds at most, unless a single gradient is larger */
  constructor(group: ProcessGroup, parameters: readonly Tensor[], bytes: number) {
    this.#group = group;
    let members: Tensor[] = [];
    let size = 0;
    const close = (): void => {
      if (members.length === 0) return;
      const bucket = { parameters: members, waiting: new Set(members) };
      this.#buckets.push(bucket);
      for (const parameter of members) this.#home.set(parameter, bucket);
      members = [];
      size = 0;
    };
    for (const parameter of [...parameters].reverse()) {
      const dtype = gradientDtype(parameter.dtype);
      const own = parameter.size * (dtype === 'f64' ? 8 : 4);
      const other = members.length > 0 && gradientDtype(members[0]!.dtype) !== dtype;
      if (other || size + own > bytes) close();
      members.push(parameter);
      size += own;
    }
    close();
  }

  /** A gradient is complete. */
  ready(parameter: Tensor): void {
    this.#home.get(parameter)?.waiting.delete(parameter);
    while (this.#buckets[this.#next]?.waiting.size === 0) this.#send(this.#buckets[this.#next]!);
  }

  /** Sends what has not left yet, and waits until every gradient is the sum over all ranks; a parameter that has none on any rank gets none. */
  async finish(): Promise<void> {
    while (this.#next < this.#buckets.length) this.#send(this.#buckets[this.#next]!);
    // All of them, whatever becomes of one: a Work that nobody awaits would be an unhandled rejection.
    const ends = await Promise.allSettled(this.#buckets.map(({ sent }) => sent!.work.wait()));
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed) throw failed.reason;
    for (const { parameters, sent } of this.#buckets) {
      const { flat, had } = sent!;
      try {
        if (had.includes(false)) await dropUnknown(parameters, flat);
      } finally {
        flat.dispose(); // the gradients are views of it
      }
    }
  }

  /** After an error: lets go of what is on its way. */
  abandon(): void {
    for (const { sent } of this.#buckets) {
      sent?.work.wait().catch(() => {});
      sent?.flat.dispose();
    }
  }

  #send(bucket: Bucket): void {
    this.#next += 1;
    const { parameters } = bucket;
    const had = parameters.map(({ grad }) => grad !== undefined);
    const { dtype: own, device } = parameters[0]!;
    const dtype = gradientDtype(own);
    const flat = noGrad(() =>
      scope(() => {
        const parts = parameters.map((p) =>
          p.grad ? view(p.grad, [p.size]) : zeros([p.size], { dtype, device }),
        );
        return keep(cat([...parts, tensor(had.map(Number), undefined, { dtype, device })]));
      }),
    );
    let at = 0;
    for (const parameter of parameters) {
      parameter.grad?.dispose();
      parameter.grad = keep(view(flat, parameter.shape, at));
      at += parameter.size;
    }
    bucket.sent = { flat, had, work: this.#group.allReduce(flat) };
  }
}

/** Takes the gradients away that no rank has: such a parameter is not to be updated. */
async function dropUnknown(parameters: readonly Tensor[], flat: Tensor): Promise<void> {
  using tail = keep(view(flat, [parameters.length], flat.size - parameters.length));
  const ranks = (await tail.read()) as ArrayLike<number>;
  for (const [i, parameter] of parameters.entries()) {
    if (ranks[i]! > 0) continue;
    parameter.grad?.dispose();
    parameter.grad = undefined;
  }
}
