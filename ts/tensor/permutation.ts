import { fail, native } from '../native/index.ts';
import { noGrad } from './lifetime.ts';
import { expand } from './shape.ts';
import { empty, full, Tensor, tensor } from './tensor.ts';

/** Which choices of an expert with more than its capacity are kept; see {@link dispatchPlan}. */
export type DropPolicy = 'position' | 'probability' | 'random' | 'batch-prioritised';

/** In the order of native/ops/permutation.h. */
export const dropPolicies: readonly DropPolicy[] = ['position', 'probability', 'random', 'batch-prioritised'];

/** How {@link dispatchPlan} sorts choices, and what it drops. */
export interface DispatchOptions {
  /** Number of experts E; ids are 0 … E−1, or −1 for no expert. */
  experts: number;
  /** Slots per expert: one number for all, one per expert, or these as a tensor, i32 [1] or [experts]. Default: nothing is dropped. */
  capacity?: number | readonly number[] | Tensor | undefined;
  /**
   * Who stays when an expert is overfull (default 'position'):
   * - `position`: the first in `order`;
   * - `probability`: the largest |weight|, ties to the lower slot;
   * - `random`: a Philox hash of (`seed`, slot) decides;
   * - `batch-prioritised`: as `position`, with tokens ordered by their largest |weight| (Riquelme et al., arXiv 2106.05974).
   */
  dropPolicy?: DropPolicy | undefined;
  /** 'token' (default): all choices of a token before the next token's. 'slot': first choices of all tokens before second ones (GShard). */
  order?: 'token' | 'slot' | undefined;
  /** [tokens, topK] f32 or f64; needed by `probability` and `batch-prioritised` when there is a capacity. */
  weights?: Tensor | undefined;
  /** Integer ≥ 0 for `random`; default 0. */
  seed?: number | undefined;
}

/**
 * The order in which experts see tokens. A slot is one choice: `slot = token * topK + j`. A plain object of tensors: a scope that returns it
 * keeps it whole.
 */
export interface DispatchPlan {
  readonly tokens: number;
  readonly topK: number;
  readonly expertCount: number;
  /** i32 [tokens * topK]: kept slots sorted by expert, ascending within one; −1 past the last. */
  readonly rows: Tensor;
  /** i32 [expertCount + 1]: expert e owns rows offsets[e] … offsets[e + 1] − 1. */
  readonly offsets: Tensor;
  /** i32 [tokens, topK]: the row of a slot, −1 when it has no expert or was dropped. */
  readonly inverse: Tensor;
  /** i32 [expertCount]: choices beyond the capacity. */
  readonly dropped: Tensor;
  /** Number of kept slots; waits for the device. */
  kept(): number;
  /** Frees the tensors of the plan. */
  dispose(): void;
  /** As `dispose`, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Sorts the choices `experts` (i32 [tokens, topK]) by expert: stable, and the same for any number of threads. One token may choose an expert
 * more than once. Throws ERR_LIBMOE_ARGUMENT for an expert id outside −1 … E−1 and ERR_LIBMOE_SHAPE for an empty batch.
 */
export function dispatchPlan(experts: Tensor, options: DispatchOptions): DispatchPlan {
  const { experts: expertCount, dropPolicy = 'position', order = 'token', weights, seed = 0 } = options;
  const [tokens = 0, topK = 0] = experts.shape;
  if (experts.rank !== 2 || tokens === 0 || topK === 0) {
    const came = `[${experts.shape.join(', ')}]`;
    fail(
      'ERR_LIBMOE_SHAPE',
      `dispatchPlan expects experts [tokens, topK] of at least one token and choice, got ${came}`,
    );
  }
  if (!Number.isInteger(expertCount) || expertCount < 1)
    fail('ERR_LIBMOE_ARGUMENT', `experts must be a positive integer, got ${expertCount}`);
  const policy = dropPolicies.indexOf(dropPolicy);
  if (policy < 0)
    fail('ERR_LIBMOE_ARGUMENT', `dropPolicy must be one of ${dropPolicies.join(', ')}, got ${dropPolicy}`);
  if (order !== 'token' && order !== 'slot')
    fail('ERR_LIBMOE_ARGUMENT', `order must be token or slot, got ${String(order)}`);

  const device = experts.device;
  const { capacity } = options;
  const limit =
    capacity instanceof Tensor
      ? noGrad(() => expand(capacity, [expertCount]))
      : capacityTensor(capacity, expertCount, device);
  const rows = empty([tokens * topK], { dtype: 'i32', device });
  const offsets = empty([expertCount + 1], { dtype: 'i32', device });
  const inverse = empty([tokens, topK], { dtype: 'i32', device });
  const dropped = empty([expertCount], { dtype: 'i32', device });
  const dispose = (): void => {
    for (const t of [rows, offsets, inverse, dropped]) t.dispose();
  };
  try {
    native().dispatchPlan(
      experts.handle,
      limit?.handle,
      weights?.handle,
      policy,
      order === 'slot',
      seed,
      rows.handle,
      offsets.handle,
      inverse.handle,
      dropped.handle,
    );
  } catch (error) {
    dispose();
    throw error;
  } finally {
    limit?.dispose();
  }
  return {
    tokens,
    topK,
    expertCount,
    rows,
    offsets,
    inverse,
    dropped,
    kept: () => Number(offsets.readSync()[expertCount]),
    dispose,
    [Symbol.dispose]: dispose,
  };
}

function capacityTensor(
  capacity: number | readonly number[] | undefined,
  experts: number,
  device: Tensor['device'],
): Tensor | undefined {
  if (capacity === undefined) return undefined;
  const list = typeof capacity === 'number' ? [capacity] : capacity;
  if (typeof capacity !== 'number' && list.length !== experts) {
    fail(
      'ERR_LIBMOE_SHAPE',
      `capacity must be one number or one per expert (${experts}), got ${list.length}`,
    );
  }
  for (const c of list) {
    if (!(c === Number.POSITIVE_INFINITY || (Number.isInteger(c) && c >= 0)))
      fail('ERR_LIBMOE_ARGUMENT', `capacity must be whole slots per expert, at least 0, got ${c}`);
  }
  const slots = Int32Array.from(list, (c) => Math.min(c, 0x7fffffff));
  return typeof capacity === 'number'
    ? full([experts], slots[0]!, { dtype: 'i32', device })
    : tensor(slots, [experts], { device });
}
