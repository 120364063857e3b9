import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';

/** Changes with the messages, so that ranks of different versions do not misunderstand each other. */
export const protocol = 1;

const count = z.number().int().nonnegative();
/** How far a rank has come. */
const position = { begun: count, doing: z.string() };

const fromRank = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('hello'),
    protocol: z.number(),
    rank: count,
    worldSize: count,
    /** 'NCCL 2.30.7', 'Open MPI v4.1.4': must be the same everywhere. */
    engine: z.string(),
    host: z.string(),
    process: count,
    /** What rank 0 wants all to have: NCCL's unique id in base64. */
    share: z.string(),
    /** Why this rank cannot take part; empty when it can. */
    problem: z.string(),
  }),
  /** f64 values in base64: JSON has no NaN. */
  z.object({ kind: z.literal('sum'), what: z.string(), values: z.string() }),
  z.object({ kind: z.literal('report'), collective: count, message: z.string() }),
  z.object({ kind: z.literal('position'), ...position }),
  z.object({ kind: z.literal('bye'), ...position }),
]);

const toRank = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('welcome'), share: z.string() }),
  z.object({ kind: z.literal('sum'), values: z.string() }),
  z.object({ kind: z.literal('ask') }),
  /** The group is lost, at the start or later. */
  z.object({ kind: z.literal('lost'), message: z.string() }),
  /** A rank has said goodbye after so many collectives. */
  z.object({ kind: z.literal('left'), rank: count, begun: count }),
  z.object({ kind: z.literal('end') }),
]);

export type FromRank = z.infer<typeof fromRank>;
export type Hello = Extract<FromRank, { kind: 'hello' }>;
export type ToRank = z.infer<typeof toRank>;

export const sendToRank = (socket: Socket, message: ToRank): void => send(socket, message);
export const sendFromRank = (socket: Socket, message: FromRank): void => send(socket, message);

function send(socket: Socket, message: object): void {
  if (!socket.destroyed && socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

/** Calls `use` with every message; `damaged` when something else is talking. */
export const receiveFromRank = (socket: Socket, use: (message: FromRank) => void, damaged: () => void) =>
  receive(socket, (value) => fromRank.parse(value), use, damaged);
export const receiveToRank = (socket: Socket, use: (message: ToRank) => void, damaged: () => void) =>
  receive(socket, (value) => toRank.parse(value), use, damaged);

function receive<T>(
  socket: Socket,
  parse: (value: unknown) => T,
  use: (message: T) => void,
  damaged: () => void,
): void {
  socket.setNoDelay(true);
  // A machine that vanishes closes no connection: the system asks after it, whether or not the process is busy computing.
  socket.setKeepAlive(true, 10_000);
  const lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY });
  lines.on('error', () => {}); // the socket's own handler says it
  lines.on('line', (line) => {
    let message: T;
    try {
      message = parse(JSON.parse(line));
    } catch {
      damaged();
      socket.destroy();
      return;
    }
    use(message);
  });
}

export const numbersToText = (values: readonly number[]): string =>
  Buffer.from(Float64Array.from(values).buffer).toString('base64');

export function textToNumbers(text: string): number[] {
  const bytes = Uint8Array.from(Buffer.from(text, 'base64'));
  return [...new Float64Array(bytes.buffer, 0, bytes.length >> 3)];
}
