import { fail } from '../native/index.ts';
import type { TapeNode } from './autograd.ts';
import type { Tensor } from './tensor.ts';

/** What a recorded operation keeps for backward: a reference, or, of what `maker` can compute again, only a place among its readers. */
export interface Saved {
  readonly tensor: Tensor;
  /** As it was when the operation was recorded: another may be declared over the same tensor later. */
  readonly maker: TapeNode | undefined;
}

/** @throws ERR_LIBMOE_STATE */
export function requireUnwalked(node: TapeNode): void {
  if (!node.backward)
    fail(
      'ERR_LIBMOE_STATE',
      `backward() ran twice through ${node.name}: what it had saved is freed; compute it again`,
    );
}

/** Begins the hold of a recorded operation on what it saved. */
export function hold(tensor: Tensor): Saved {
  const maker = tensor.node?.again && tensor.node;
  if (maker) maker.readers += 1;
  else tensor.retain();
  return { tensor, maker };
}

const missing = ({ tensor, maker }: Saved): boolean => maker !== undefined && !tensor.allocated;

/** What a recorded operation saved is there after this. Chains may be long: no recursion. */
export function restore(saved: readonly Saved[]): void {
  const wanted = saved.filter(missing);
  for (let one = wanted.at(-1); one; one = wanted.at(-1)) {
    const { tensor, maker } = one;
    if (!maker || tensor.allocated) {
      wanted.pop();
      continue;
    }
    requireUnwalked(maker);
    const first = maker.saved.filter(missing);
    wanted.push(...first);
    if (first.length > 0) continue;
    tensor.renew();
    try {
      maker.again?.();
    } catch (error) {
      tensor.release();
      throw error;
    }
    maker.renewed = true;
  }
}

/** Ends the hold of a recorded operation on what it saved. */
export function letGo({ tensor, maker }: Saved): void {
  if (maker) {
    maker.readers -= 1;
    if (maker.readers > 0 || !maker.renewed) return;
    maker.renewed = false;
  }
  tensor.release();
}
