import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface, type Interface } from 'node:readline';

/** What a peer says about itself when a case is ready. */
export interface PeerFacts {
  /** PyTorch's version and the instruction set that it uses. */
  torch: string;
  capability: string;
  /** The fastest of several ways to do the same, chosen by trying them all on this case. */
  method?: string;
}

/**
 * The PyTorch side of a comparison: a Python process that answers one JSON line per request, kept alive so that its caches stay as warm as ours.
 * `{"setup": request}` prepares a case and answers `{"ready": true, …PeerFacts}` or `{"error": text}`; `{"results": true}` answers
 * `{"results": {name: numbers} | null}`; `{"run": n}` times n calls and answers `{"seconds": s}`; `{"memory": true}` answers `{"bytes": b}`, `{"saved": true}` answers
 * `{"bytes": b | null}`, `{"forget": true}` lets go of the case and answers `{}`.
 */
export class Peer {
  /** Seconds that it may take for an answer; Triton and torch.compile compile in the first. */
  patience = 240;
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(python: string, script: string, mode: string, threads: number, device = 'cpu') {
    // What chooses our kernels must not reach PyTorch: cuBLAS has no PTX to be forced to.
    const { CUDA_FORCE_PTX_JIT: _, ...env } = process.env;
    this.#child = spawn(
      python,
      [
        path.join(import.meta.dirname, 'peers', script),
        ...['--mode', mode, '--threads', String(threads), '--device', device],
      ],
      { stdio: ['pipe', 'pipe', 'inherit'], env },
    );
    this.#child.on('error', () => {}); // the missing answer reports it
    this.#reader = createInterface({ input: this.#child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async #ask(request: unknown): Promise<Record<string, unknown>> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#answer();
    if (done) throw new Error('the peer ended without an answer; does that Python import torch?');
    const answer = JSON.parse(value) as Record<string, unknown>;
    if (typeof answer.error === 'string') throw new Error(answer.error);
    return answer;
  }

  async #answer(): Promise<IteratorResult<string>> {
    const { patience } = this;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer for ${patience} s`)), patience * 1e3);
    });
    try {
      return await Promise.race([this.#lines.next(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async setup(request: unknown): Promise<PeerFacts> {
    const { torch, capability, method } = await this.#ask({ setup: request });
    return {
      torch: String(torch),
      capability: String(capability),
      ...(typeof method === 'string' && { method }),
    };
  }

  /** What one call of the peer computes, where its script says so. */
  async results(): Promise<Record<string, number[]> | undefined> {
    const { results } = await this.#ask({ results: true });
    return (results ?? undefined) as Record<string, number[]> | undefined;
  }

  /** Seconds of one call, averaged over `calls`. */
  async time(calls: number): Promise<number> {
    return Number((await this.#ask({ run: calls })).seconds) / calls;
  }

  /** Bytes by which one call takes the resident memory of the peer above what it was before the case was set up. */
  async memory(): Promise<number> {
    return Number((await this.#ask({ memory: true })).bytes);
  }

  /** Bytes that the peer's forward pass keeps for backward, where its script says so. */
  async saved(): Promise<number | undefined> {
    const { bytes } = await this.#ask({ saved: true });
    return typeof bytes === 'number' ? bytes : undefined;
  }

  /** Lets go of the case's tensors. */
  async forget(): Promise<void> {
    await this.#ask({ forget: true });
  }

  end(): void {
    this.#reader.close();
    this.#child.stdin?.end();
    this.#child.kill();
  }
}
