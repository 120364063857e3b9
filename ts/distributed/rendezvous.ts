// Where the ranks meet: a star of small messages with rank 0 in the middle. Tensors never come this way.
import { connect, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { LibmoeError } from '../native/index.ts';
import {
  numbersToText,
  protocol,
  receiveToRank,
  sendFromRank,
  type ToRank,
  textToNumbers,
} from './messages.ts';
import { RendezvousServer } from './rendezvous-server.ts';

/** Where rank 0 listens and for whom. */
export interface RendezvousPlace {
  host: string;
  /** With 0, rank 0 takes one that is free. */
  port: number;
  worldSize: number;
  /** Seconds. */
  timeout: number;
}

/** How this process presents itself. */
export interface Newcomer {
  rank: number;
  engine: string;
  /** Of rank 0: what all are to have. */
  share: Uint8Array;
  /** Why this rank cannot take part; the others are told. */
  problem: string;
}

/** What the others tell, at any time. */
export interface RendezvousEvents {
  /** How many collectives this rank has begun, and what it does. */
  position(): { begun: number; doing: string };
  lost(message: string): void;
  /** A rank has left after so many collectives. */
  left(rank: number, begun: number): void;
}

const collective = (message: string, cause?: unknown): LibmoeError =>
  new LibmoeError('ERR_LIBMOE_COLLECTIVE', message, cause === undefined ? undefined : { cause });

/** What a rank waits for from rank 0. */
interface Waiter {
  resolve(value: string): void;
  reject(error: Error): void;
}

/** This process's line to rank 0. */
export class Rendezvous {
  readonly #socket: Socket;
  readonly #place: RendezvousPlace;
  readonly #events: RendezvousEvents;
  readonly #server: RendezvousServer | undefined;
  #waiter: Waiter | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #lost = '';
  #ending = false;
  /** What rank 0 wanted all to have. */
  share: Uint8Array = new Uint8Array();

  private constructor(
    socket: Socket,
    place: RendezvousPlace,
    events: RendezvousEvents,
    server: RendezvousServer | undefined,
  ) {
    this.#socket = socket;
    this.#place = place;
    this.#events = events;
    this.#server = server;
  }

  /**
   * Resolves when all ranks have come. Throws ERR_LIBMOE_COLLECTIVE, on every rank, when some do not come in time, do not fit together, or cannot
   * take part; on rank 0 when it cannot listen.
   */
  static async join(
    place: RendezvousPlace,
    me: Newcomer,
    events: RendezvousEvents,
    server?: RendezvousServer,
  ): Promise<Rendezvous> {
    if (me.rank === 0 && !server) {
      const listening = await RendezvousServer.listen(place);
      return Rendezvous.join({ ...place, port: listening.port }, me, events, listening.server);
    }
    let self: Rendezvous | undefined;
    try {
      self = new Rendezvous(await connected(place, me.rank), place, events, server);
      self.share = Uint8Array.from(Buffer.from(await self.#greet(me), 'base64'));
      self.#socket.unref();
      return self;
    } catch (error) {
      if (self) self.close();
      else server?.close();
      throw error;
    }
  }

  #greet(me: Newcomer): Promise<string> {
    const { worldSize, host, port } = this.#place;
    receiveToRank(
      this.#socket,
      (message) => this.#receive(message),
      () =>
        this.#lose(
          `what listens at ${host}:${port} is no rank 0 of this libmoe: set MASTER_PORT to another port`,
        ),
    );
    this.#socket.on('close', () => {
      if (!this.#ending) this.#lose('rank 0 is gone: its process has ended or its machine cannot be reached');
    });
    return this.#await('waiting for all ranks', () =>
      sendFromRank(this.#socket, {
        kind: 'hello',
        protocol,
        rank: me.rank,
        worldSize,
        engine: me.engine,
        host: hostname(),
        process: process.pid,
        share: Buffer.from(me.share).toString('base64'),
        problem: me.problem,
      }),
    );
  }

  /** Sends and waits for the one answer; rank 0 keeps the time, this only sees that rank 0 is alive. */
  #await(what: string, begin: () => void): Promise<string> {
    if (this.#lost) return Promise.reject(collective(`${what}: ${this.#lost}`));
    this.#socket.ref();
    const { timeout } = this.#place;
    return new Promise<string>((resolve, reject) => {
      const timer = setTimeout(
        () =>
          this.#lose(
            `rank 0 has not answered for ${timeout + 5} s: it is stopped, hangs, or computes for long without a pause`,
          ),
        (timeout + 5) * 1000,
      );
      const settled = () => {
        clearTimeout(timer);
        this.#waiter = undefined;
        this.#socket.unref();
      };
      this.#waiter = {
        resolve(value) {
          settled();
          resolve(value);
        },
        reject(error) {
          settled();
          // Rank 0 names what it was about; that may be what we were about ourselves.
          const { message } = error;
          reject(collective(message.startsWith(`${what}: `) ? message : `${what}: ${message}`));
        },
      };
      begin();
    });
  }

  #receive(message: ToRank): void {
    switch (message.kind) {
      case 'welcome':
        this.#waiter?.resolve(message.share);
        break;
      case 'sum':
        this.#waiter?.resolve(message.values);
        break;
      case 'end':
        this.#waiter?.resolve('');
        break;
      case 'ask':
        sendFromRank(this.#socket, { kind: 'position', ...this.#events.position() });
        break;
      case 'left':
        this.#events.left(message.rank, message.begun);
        break;
      case 'lost':
        this.#lose(message.message);
        break;
    }
  }

  #lose(message: string): void {
    if (this.#lost) return;
    this.#lost = message;
    this.#events.lost(message);
    this.#waiter?.reject(new Error(message));
  }

  /** Why the group is lost; empty while it is not. */
  get lost(): string {
    return this.#lost;
  }

  /** Sums of host numbers in the order of ranks; calls take their turn. */
  sum(what: string, values: readonly number[]): Promise<number[]> {
    const mine = this.#turn.then(() =>
      this.#await(what, () =>
        sendFromRank(this.#socket, { kind: 'sum', what, values: numbersToText(values) }),
      ),
    );
    this.#turn = mine.catch(() => {});
    return mine.then(textToNumbers);
  }

  /** A collective has failed here: resolves with what rank 0 found out about it. All ranks are told. */
  async report(number: number, message: string): Promise<string> {
    sendFromRank(this.#socket, { kind: 'report', collective: number, message });
    const until = Date.now() + 5000;
    while (!this.#lost && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    return this.#lost || `${message}. Rank 0 does not answer`;
  }

  /** Says goodbye and waits until all others do, unless the group is lost. Resolves with whether all agreed. */
  async bye(): Promise<boolean> {
    try {
      await this.#turn;
      await this.#await('leaving', () =>
        sendFromRank(this.#socket, { kind: 'bye', ...this.#events.position() }),
      );
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the line. */
  close(): void {
    this.#ending = true;
    this.#server?.close();
    this.#socket.end();
    this.#socket.unref();
  }
}

/** A connection to rank 0, which may begin to listen later than we begin to look for it. */
async function connected({ host, port, timeout }: RendezvousPlace, rank: number): Promise<Socket> {
  const until = Date.now() + timeout * 1000;
  for (let pause = 50; ; pause = Math.min(2 * pause, 500)) {
    try {
      return await attempt(host, port, Math.max(1, until - Date.now()));
    } catch (error) {
      if (Date.now() + pause < until) {
        await new Promise((resolve) => setTimeout(resolve, pause));
        continue;
      }
      throw collective(
        `rank ${rank} has found no rank 0 at ${host}:${port} for ${timeout} s (${(error as Error).message}): ` +
          'look whether rank 0 was started and MASTER_ADDR and MASTER_PORT are the same everywhere',
        error,
      );
    }
  }
}

function attempt(host: string, port: number, milliseconds: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), milliseconds);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refused);
      socket.on('error', () => {}); // 'close' follows
      resolve(socket);
    });
    const refused = (error: Error) => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once('error', refused);
  });
}
