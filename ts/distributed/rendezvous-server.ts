// Rank 0's side of the rendezvous: lets the ranks in, passes small things round, and finds out who is at fault when a collective does not end.
import { createServer, type Server, type Socket } from 'node:net';
import { LibmoeError } from '../native/index.ts';
import {
  type FromRank,
  type Hello,
  numbersToText,
  protocol,
  receiveFromRank,
  sendToRank,
  type ToRank,
  textToNumbers,
} from './messages.ts';
import type { RendezvousPlace } from './rendezvous.ts';

/** How long a rank may take to say where it is, before it counts as not answering. */
const answerMilliseconds = 2000;

interface Member {
  hello: Hello;
  socket: Socket;
  bye: boolean;
  /** Its part of the sum that is being collected. */
  sum?: number[] | undefined;
  /** How many collectives it has begun and what it does, as it said when it was last asked. */
  position?: { begun: number; doing: string } | undefined;
}

const list = (ranks: readonly number[]): string =>
  `${ranks.length === 1 ? 'rank' : 'ranks'} ${ranks.join(', ')}`;
const named = ({ hello }: Member): string => `rank ${hello.rank} (process ${hello.process} on ${hello.host})`;

export class RendezvousServer {
  readonly #place: RendezvousPlace;
  readonly #members = new Map<number, Member>();
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #lost = '';
  #waiting: NodeJS.Timeout | undefined;
  #asking = false;

  private constructor(place: RendezvousPlace) {
    this.#place = place;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Listens at the rendezvous. Throws ERR_LIBMOE_COLLECTIVE when the port is taken. */
  static async listen(place: RendezvousPlace): Promise<{ server: RendezvousServer; port: number }> {
    const self = new RendezvousServer(place);
    try {
      await self.#listen(place.host);
    } catch (error) {
      // The master's address may be one that this machine has only on the outside.
      if ((error as NodeJS.ErrnoException).code !== 'EADDRNOTAVAIL') throw self.#refused(error);
      await self.#listen(undefined).catch((again: unknown) => {
        throw self.#refused(again);
      });
    }
    self.#server.unref();
    self.#waiting = setTimeout(() => self.#nobodyCame(), place.timeout * 1000);
    const address = self.#server.address();
    return { server: self, port: typeof address === 'object' && address ? address.port : place.port };
  }

  #listen(host: string | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ port: this.#place.port, ...(host !== undefined && { host }) }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  #refused(error: unknown): LibmoeError {
    const { code, message } = error as NodeJS.ErrnoException;
    const { host, port } = this.#place;
    const why =
      code === 'EADDRINUSE'
        ? 'the port is in use by another process: set MASTER_PORT to a free one, on every rank'
        : `${message}: set MASTER_ADDR and MASTER_PORT to an address of rank 0's machine`;
    return new LibmoeError('ERR_LIBMOE_COLLECTIVE', `rank 0 cannot listen at ${host}:${port}: ${why}`, {
      cause: error,
    });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    let member: Member | undefined;
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (member && !member.bye && this.#members.get(member.hello.rank) === member) this.#gone(member);
    });
    receiveFromRank(
      socket,
      (message) => {
        if (message.kind === 'hello') member = this.#hello(message, socket);
        else if (member) this.#from(member, message);
      },
      () => {}, // a stranger at the door
    );
  }

  #hello(hello: Hello, socket: Socket): Member | undefined {
    const member: Member = { hello, socket, bye: false };
    const { worldSize } = this.#place;
    const first = this.#members.values().next().value;
    const { rank } = hello;
    let why = this.#lost;
    if (!why && hello.protocol !== protocol)
      why = `${named(member)} runs another version of libmoe: install the same on every machine`;
    else if (!why && hello.worldSize !== worldSize)
      why = `${named(member)} was started with a world size of ${hello.worldSize}, rank 0 with ${worldSize}: start all ranks with the same WORLD_SIZE`;
    else if (!why && rank >= worldSize) why = `${named(member)} is not below the world size ${worldSize}`;
    else if (!why && this.#members.has(rank))
      why = `two processes say that they are rank ${rank}: ${named(this.#members.get(rank)!)} and process ${hello.process} on ${hello.host}; every process needs a RANK of its own`;
    else if (!why && hello.problem) why = `${named(member)} cannot take part: ${hello.problem}`;
    else if (!why && first && first.hello.engine !== hello.engine)
      why = `${named(member)} has ${hello.engine}, ${named(first)} ${first.hello.engine}: all ranks need the same`;
    if (why) {
      sendToRank(socket, { kind: 'lost', message: why });
      this.#lose(why);
      return undefined;
    }
    this.#members.set(rank, member);
    if (this.#members.size === worldSize) {
      clearTimeout(this.#waiting);
      this.#tell({ kind: 'welcome', share: this.#members.get(0)!.hello.share });
    }
    return member;
  }

  #nobodyCame(): void {
    const { worldSize, timeout, host, port } = this.#place;
    const missing = Array.from({ length: worldSize }, (_, rank) => rank).filter((r) => !this.#members.has(r));
    this.#lose(
      `after ${timeout} s ${list(missing)} of ${worldSize} ${missing.length === 1 ? 'has' : 'have'} not come to rank 0 at ${host}:${port}: ` +
        'look whether they were started, with the same MASTER_ADDR and MASTER_PORT, and can reach that address',
    );
  }

  #from(member: Member, message: Exclude<FromRank, Hello>): void {
    switch (message.kind) {
      case 'sum':
        member.sum = textToNumbers(message.values);
        this.#sum(message.what);
        break;
      case 'position':
        member.position = message;
        break;
      case 'report':
        void this.#blame(message.collective, message.message);
        break;
      case 'bye':
        member.bye = true;
        member.position = message;
        this.#tell({ kind: 'left', rank: member.hello.rank, begun: message.begun });
        if ([...this.#members.values()].every(({ bye }) => bye)) {
          this.#server.close(); // who comes now means the next group, which rank 0 has still to open
          this.#tell({ kind: 'end' });
        }
        break;
    }
  }

  #sum(what: string): void {
    const members = this.#byRank();
    const parts = members.flatMap(({ sum }) => (sum ? [sum] : []));
    const left = members.find(({ bye }) => bye);
    if (left) {
      this.#lose(`${what}: ${named(left)} has left the group`);
      return;
    }
    if (parts.length < members.length) {
      if (parts.length === 1)
        this.#waiting = setTimeout(() => this.#lateForSum(what), this.#place.timeout * 1000);
      return;
    }
    clearTimeout(this.#waiting);
    const lengths = members.map(({ sum }) => sum!.length);
    if (lengths.some((n) => n !== lengths[0])) {
      this.#lose(`${what}: every rank must give as many numbers, got ${lengths.join(', ')} by rank`);
      return;
    }
    const total = parts[0]!.map((_, i) => parts.reduce((sum, part) => sum + part[i]!, 0));
    for (const member of members) member.sum = undefined;
    this.#tell({ kind: 'sum', values: numbersToText(total) });
  }

  #lateForSum(what: string): void {
    const late = this.#byRank().filter(({ sum }) => !sum);
    this.#lose(
      `${what}: after ${this.#place.timeout} s ${list(late.map(({ hello }) => hello.rank))} ${late.length === 1 ? 'has' : 'have'} not called it`,
    );
  }

  /** Asks every rank where it is and tells all of them who is behind. */
  async #blame(collective: number, message: string): Promise<void> {
    if (this.#lost || this.#asking) return;
    this.#asking = true;
    for (const member of this.#members.values()) if (!member.bye) member.position = undefined;
    this.#tell({ kind: 'ask' });
    const until = Date.now() + answerMilliseconds;
    while (Date.now() < until && this.#byRank().some(({ position }) => !position))
      await new Promise((resolve) => setTimeout(resolve, 20));
    const members = this.#byRank();
    const silent = members
      .filter(({ position }) => !position)
      .map((m) => `${named(m)} does not answer: it is stopped, hangs, or computes for long without a pause`);
    const behind = members.flatMap((m) =>
      m.position && m.position.begun < collective
        ? [
            `${named(m)} has begun ${m.position.begun} collectives of ${collective}${m.position.doing && `, it is in ${m.position.doing}`}`,
          ]
        : [],
    );
    const why = [...silent, ...behind];
    this.#lose(
      `${message}. ${why.length > 0 ? why.join('; ') : 'All ranks have begun it: look at the engine and the links between the machines'}`,
    );
  }

  #gone(member: Member): void {
    this.#lose(`${named(member)} is gone: its process has ended or its machine cannot be reached`);
  }

  #lose(message: string): void {
    if (this.#lost) return;
    this.#lost = message;
    clearTimeout(this.#waiting);
    this.#tell({ kind: 'lost', message });
  }

  #tell(message: ToRank): void {
    for (const { socket } of this.#members.values()) sendToRank(socket, message);
  }

  #byRank(): Member[] {
    return [...this.#members.values()].sort((a, b) => a.hello.rank - b.hello.rank);
  }

  /** Ends everything once what was written has gone out. */
  close(): void {
    clearTimeout(this.#waiting);
    this.#server.close();
    for (const socket of this.#sockets) {
      socket.unref();
      socket.end();
    }
  }
}
