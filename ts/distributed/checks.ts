import { fail } from '../native/index.ts';
import type { DeviceName, Dtype, Tensor } from '../tensor/index.ts';

const reducible: readonly Dtype[] = ['f32', 'f64', 'bf16', 'i32', 'i64'];
const text = (t: Tensor): string => `[${t.shape.join(', ')}]`;

/** What a collective needs to know of its group. */
export interface GroupFacts {
  readonly worldSize: number;
  readonly device: DeviceName;
}

function checkDevice(op: string, group: GroupFacts, tensors: readonly Tensor[]): void {
  for (const t of tensors) {
    if (t.device !== group.device)
      fail(
        'ERR_LIBMOE_DEVICE',
        `${op}: this process group moves tensors on ${group.device}, got one on ${t.device}`,
      );
  }
}

/** A tensor that is changed in place. */
export function checkInPlace(op: string, group: GroupFacts, tensor: Tensor): void {
  checkDevice(op, group, [tensor]);
}

/** Only what all engines add in the same way. */
export function checkReducible(op: string, tensor: Tensor): void {
  if (!reducible.includes(tensor.dtype))
    fail('ERR_LIBMOE_DTYPE', `${op} expects ${reducible.join(', ')}, got ${tensor.dtype}; cast() it`);
}

/** `whole` has `worldSize` pieces of the size of `piece`. */
export function checkPieces(
  op: string,
  group: GroupFacts,
  whole: { name: string; tensor: Tensor },
  piece: { name: string; tensor: Tensor },
): void {
  checkDevice(op, group, [whole.tensor, piece.tensor]);
  if (whole.tensor.dtype !== piece.tensor.dtype)
    fail(
      'ERR_LIBMOE_DTYPE',
      `${op} expects one dtype, got ${whole.name} ${whole.tensor.dtype} and ${piece.name} ${piece.tensor.dtype}`,
    );
  if (whole.tensor.size !== piece.tensor.size * group.worldSize)
    fail(
      'ERR_LIBMOE_SHAPE',
      `${op}: ${whole.name} must have ${group.worldSize} times the elements of ${piece.name} (one piece for each rank), ` +
        `got ${text(whole.tensor)} and ${text(piece.tensor)}`,
    );
}

/** Rows by rank; answers the elements of one row. */
export function checkRows(
  op: string,
  group: GroupFacts,
  input: Tensor,
  inputCounts: readonly number[],
  output: Tensor,
  outputCounts: readonly number[],
): number {
  checkDevice(op, group, [input, output]);
  if (input.dtype !== output.dtype)
    fail('ERR_LIBMOE_DTYPE', `${op} expects one dtype, got input ${input.dtype} and output ${output.dtype}`);
  if (
    input.rank === 0 ||
    input.rank !== output.rank ||
    input.shape.slice(1).join() !== output.shape.slice(1).join()
  )
    fail(
      'ERR_LIBMOE_SHAPE',
      `${op} expects rows of one shape, [rows, …], got input ${text(input)} and output ${text(output)}`,
    );
  for (const [name, counts, t] of [
    ['inputCounts', inputCounts, input],
    ['outputCounts', outputCounts, output],
  ] as const) {
    if (counts.length !== group.worldSize || counts.some((n) => !Number.isInteger(n) || n < 0))
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `${op}: ${name} must be ${group.worldSize} non-negative integers, one for each rank, got [${counts.join(', ')}]`,
      );
    const rows = counts.reduce((sum, n) => sum + n, 0);
    if (rows > t.shape[0]!)
      fail('ERR_LIBMOE_SHAPE', `${op}: ${name} add up to ${rows} rows, the tensor has ${t.shape[0]}`);
  }
  return input.shape.slice(1).reduce((product, n) => product * n, 1);
}

/** A rank of the group. */
export function checkRoot(op: string, group: GroupFacts, root: number): void {
  if (!Number.isInteger(root) || root < 0 || root >= group.worldSize)
    fail('ERR_LIBMOE_ARGUMENT', `${op}: root must be a rank from 0 to ${group.worldSize - 1}, got ${root}`);
}
