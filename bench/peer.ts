import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface, type Interface } from 'node:readline';

/**
 * The PyTorch side of a comparison: a Python process that answers one JSON line per request, kept alive so that its caches stay as warm as ours.
 * `{"setup": request}` prepares a case and answers `{"ready": true}` or `{"error": text}`; `{"run": n}` times n calls and answers `{"seconds": s}`; `{"memory": true}`
 * answers `{"bytes": b}`.
 */
export class Peer {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(python: string, script: string, mode: string, threads: number) {
    this.#child = spawn(
      python,
      [path.join(import.meta.dirname, 'peers', script), '--mode', mode, '--threads', String(threads)],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    this.#child.on('error', () => {}); // the missing answer reports it
    this.#reader = createInterface({ input: this.#child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async #ask(request: unknown): Promise<Record<string, unknown>> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the peer ended without an answer; does that Python import torch?');
    const answer = JSON.parse(value) as Record<string, unknown>;
    if (typeof answer.error === 'string') throw new Error(answer.error);
    return answer;
  }

  async setup(request: unknown): Promise<void> {
    await this.#ask({ setup: request });
  }

  /** Seconds of one call, averaged over `calls`. */
  async time(calls: number): Promise<number> {
    return Number((await this.#ask({ run: calls })).seconds) / calls;
  }

  /** Bytes by which one call raises the resident memory of the peer. */
  async memory(): Promise<number> {
    return Number((await this.#ask({ memory: true })).bytes);
  }

  end(): void {
    this.#reader.close();
    this.#child.stdin?.end();
    this.#child.kill();
  }
}
