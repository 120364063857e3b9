import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fail } from '../../native/index.ts';
import type { Judge, JudgeRequest } from './scorer.ts';

/** Where a judge is and how patient to be with it. */
export interface JudgeOptions {
  /** Base address of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`. */
  url: string;
  model: string;
  /** Asked for at the first request only. Default: the environment's OPENAI_API_KEY. */
  apiKey?: () => string | undefined;
  /** Requests under way at once. */
  concurrency?: number;
  /** Further attempts after a busy or unreachable server, or a late answer. */
  retries?: number;
  /** The wait before the first of them in milliseconds; it doubles every time, to a minute at most. */
  backoff?: number;
  /** Milliseconds that one attempt may take. */
  timeout?: number;
  /** Folder of `judge-cache.jsonl`, where answers are kept by the content of their question. */
  cache?: string;
  /** Aborting ends all requests, those that wait too; they reject with its reason. */
  signal?: AbortSignal;
}

/** A judge behind an address, with what it has done so far. */
export interface JudgeClient extends Judge {
  readonly calls: number;
  readonly failed: number;
  readonly cached: number;
  /** Why the last failed request failed. */
  readonly lastError: string | undefined;
}

/**
 * A judge at any OpenAI-compatible address. A request that fails for good gives null, never a made-up answer, and is
 * not cached; the same question to the same model is asked once.
 * @throws ERR_LIBMOE_ARGUMENT for an address that is none
 */
export function openAiJudge(options: JudgeOptions): JudgeClient {
  return new Client(options);
}

class Client implements JudgeClient {
  readonly model: string;
  calls = 0;
  failed = 0;
  cached = 0;
  lastError: string | undefined;
  private readonly address: string;
  private readonly known = new Map<string, Promise<string | null>>();
  private readonly file: string | undefined;
  private running = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(private readonly options: JudgeOptions) {
    if (!URL.canParse(options.url) || !/^https?:/.test(options.url))
      fail('ERR_LIBMOE_ARGUMENT', `a judge's address must be an http(s) URL, got "${options.url}"`);
    this.model = options.model;
    this.address = `${options.url.replace(/\/+$/, '')}/chat/completions`;
    if (options.cache === undefined) return;
    mkdirSync(options.cache, { recursive: true });
    this.file = join(options.cache, 'judge-cache.jsonl');
    if (!existsSync(this.file)) return;
    const text = readFileSync(this.file, 'utf8');
    for (const line of text.split('\n')) this.remember(line);
    // The last line of a killed run may be half a line: the next answer starts a new one.
    if (text !== '' && !text.endsWith('\n')) appendFileSync(this.file, '\n');
  }

  private remember(line: string): void {
    try {
      const { key, reply } = JSON.parse(line) as { key: string; reply: string };
      this.known.set(key, Promise.resolve(reply));
    } catch {
      // Half a line; its question is asked again.
    }
  }

  async ask(request: JudgeRequest): Promise<string | null> {
    const key = digest(this.bodyOf(request, (file) => digest(readImage(file))));
    const before = this.known.get(key);
    if (before !== undefined) {
      this.cached += 1;
      return before;
    }
    const asked = this.inTurn(() => this.attempt(this.bodyOf(request, dataUrl)));
    this.known.set(key, asked);
    const reply = await asked.catch((cause: unknown) => {
      this.known.delete(key);
      throw cause;
    });
    if (reply === null) {
      this.known.delete(key);
      this.failed += 1;
    } else if (this.file !== undefined) appendFileSync(this.file, `${JSON.stringify({ key, reply })}\n`);
    return reply;
  }

  /** Images are written out when it is their turn only: all at once they would fill the memory. */
  private bodyOf(request: JudgeRequest, imageUrl: (file: string) => string): string {
    return JSON.stringify({
      model: this.model,
      messages: [
        ...(request.system === undefined ? [] : [{ role: 'system', content: request.system }]),
        { role: 'user', content: contentFor(request, imageUrl) },
      ],
      max_tokens: request.maxTokens,
      temperature: request.temperature,
    });
  }

  private async inTurn(work: () => Promise<string | null>): Promise<string | null> {
    if (this.running >= (this.options.concurrency ?? 8))
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    this.running += 1;
    try {
      return await work();
    } finally {
      this.running -= 1;
      this.waiting.shift()?.();
    }
  }

  private async attempt(body: string): Promise<string | null> {
    const { retries = 5, backoff = 1000, timeout = 60_000, signal } = this.options;
    const key = this.options.apiKey === undefined ? process.env.OPENAI_API_KEY : this.options.apiKey();
    for (let tries = 0; ; tries++) {
      let wait = Math.min(60_000, backoff * 2 ** tries);
      signal?.throwIfAborted();
      this.calls += 1;
      try {
        const limit = AbortSignal.timeout(timeout);
        const response = await fetch(this.address, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
          body,
          signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
        });
        if (response.ok) {
          const reply = contentOf(await response.json());
          if (reply !== undefined) return reply;
          this.lastError = 'the answer has no choices[0].message.content';
        } else {
          const { status } = response;
          this.lastError = `HTTP ${status}: ${(await response.text()).slice(0, 200)}`;
          // A request the server refuses stays refused.
          if (status < 500 && status !== 429 && status !== 408) return null;
          const after = Number(response.headers.get('retry-after') ?? Number.NaN);
          if (after >= 0) wait = Math.min(60_000, after * 1000);
        }
      } catch (cause) {
        signal?.throwIfAborted();
        this.lastError = (cause as Error).message;
      }
      if (tries >= retries) return null;
      await sleep(wait, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

const IMAGE_TYPES: Readonly<Record<string, string>> = {
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
  '.gif': 'gif',
};

const digest = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

function readImage(file: string): string | Uint8Array {
  return file.startsWith('data:') ? file : readFileSync(file);
}

function dataUrl(file: string): string {
  if (file.startsWith('data:')) return file;
  const type = IMAGE_TYPES[extname(file).toLowerCase()] ?? 'png';
  return `data:image/${type};base64,${readFileSync(file).toString('base64')}`;
}

/** A prompt, with its images behind it where there are any. */
function contentFor({ prompt, images = [] }: JudgeRequest, imageUrl: (file: string) => string): unknown {
  if (images.length === 0) return prompt;
  return [
    { type: 'text', text: prompt },
    ...images.map((file) => ({ type: 'image_url', image_url: { url: imageUrl(file) } })),
  ];
}

function contentOf(answer: unknown): string | undefined {
  const { choices } = (answer ?? {}) as { choices?: { message?: { content?: unknown } }[] };
  const content = choices?.[0]?.message?.content;
  return typeof content === 'string' ? content : undefined;
}
