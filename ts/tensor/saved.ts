import { fail } from '../native/index.ts';
import type { TapeNode } from './autograd.ts';
import type { Tensor } from './tensor.ts';

// What recorded operations keep for backward. A reference each; of what can be computed again, only a count of who will read it.

/** @throws ERR_LIBMOE_STATE */
export function requireUnwalked(node: TapeNode): void {
  if (!node.backward)
    fail(
      'ERR_LIBMOE_STATE',
      `backward() ran twice through ${node.name}: what it had saved is freed; compute it again`,
    );
}

/** Begins the hold of a recorded operation on what it saved. */
export function hold(t: Tensor): void {
  if (t.node?.again) t.node.readers += 1;
  else t.retain();
}

/** What a recorded operation saved is there after this. */
export function restore(t: Tensor): void {
  const maker = t.node;
  if (!maker?.again || t.allocated) return;
  requireUnwalked(maker);
  maker.saved.forEach(restore);
  t.renew();
  maker.renewed = true;
  maker.again();
}

/** Ends the hold of a recorded operation on what it saved. */
export function letGo(t: Tensor): void {
  const maker = t.node;
  if (maker?.again) {
    maker.readers -= 1;
    if (maker.readers > 0 || !maker.renewed) return;
    maker.renewed = false;
  }
  t.release();
}
