// Collectives on tensors: arguments checked here, begun by native/binding/collective.cpp, finished when the promise resolves. What they are made of
// above this, the ranks and their rendezvous, is ts/distributed.
import { fail, native } from '../native/index.ts';
import { type DeviceName, type Dtype, parseDevice } from './dtype.ts';
import type { Tensor } from './tensor.ts';

const reducible: readonly Dtype[] = ['f32', 'f64', 'bf16', 'i32', 'i64'];
const text = (t: Tensor): string => `[${t.shape.join(', ')}]`;

/** What a collective needs to know of its group. */
export interface GroupFacts {
  readonly worldSize: number;
  readonly device: DeviceName;
}

/** A group that an engine connects, or is about to: `number` names it to the native part. */
export interface Connection extends GroupFacts {
  readonly number: number;
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

/** Begins to connect this process as `rank` of `worldSize`; `connected` resolves when the engine has found all the others. */
export function openConnection(place: {
  engine: 'mpi' | 'nccl';
  device: DeviceName;
  rank: number;
  worldSize: number;
  /** Seconds. */
  timeout: number;
  /** NCCL's unique id, the same on every rank; empty for MPI. */
  id: Uint8Array;
}): { connection: Connection; connected: Promise<void> } {
  const { engine, device, rank, worldSize, timeout, id } = place;
  const { kind, index } = parseDevice(device);
  const code = engine === 'nccl' ? 1 : 0;
  const { communicator, connected } = native().openCommunicator(
    code,
    kind,
    index,
    rank,
    worldSize,
    timeout,
    id,
  );
  return { connection: { number: communicator, worldSize, device }, connected };
}

export function allReduce(
  c: Connection,
  what: string,
  tensor: Tensor,
  op: 'sum' | 'max' = 'sum',
): Promise<void> {
  checkInPlace('allReduce', c, tensor);
  checkReducible('allReduce', tensor);
  if (op !== 'sum' && op !== 'max')
    fail('ERR_LIBMOE_ARGUMENT', `allReduce: op must be 'sum' or 'max', got '${String(op)}'`);
  return native().allReduce(c.number, what, tensor.handle, op === 'max' ? 1 : 0);
}

export function reduceScatter(c: Connection, what: string, input: Tensor, output: Tensor): Promise<void> {
  checkPieces('reduceScatter', c, { name: 'input', tensor: input }, { name: 'output', tensor: output });
  checkReducible('reduceScatter', input);
  return native().reduceScatter(c.number, what, input.handle, output.handle, c.worldSize);
}

export function allGather(c: Connection, what: string, input: Tensor, output: Tensor): Promise<void> {
  checkPieces('allGather', c, { name: 'output', tensor: output }, { name: 'input', tensor: input });
  return native().allGather(c.number, what, input.handle, output.handle, c.worldSize);
}

export function allToAll(
  c: Connection,
  what: string,
  input: Tensor,
  inputCounts: readonly number[],
  output: Tensor,
  outputCounts: readonly number[],
): Promise<void> {
  const row = checkRows('allToAll', c, input, inputCounts, output, outputCounts);
  return native().allToAll(
    c.number,
    what,
    input.handle,
    inputCounts,
    output.handle,
    outputCounts,
    row,
    c.worldSize,
  );
}

export function broadcast(c: Connection, what: string, tensor: Tensor, root: number): Promise<void> {
  checkInPlace('broadcast', c, tensor);
  checkRoot('broadcast', c, root);
  return native().broadcast(c.number, what, tensor.handle, root);
}
