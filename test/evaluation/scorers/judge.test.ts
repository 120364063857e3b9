import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type Judge,
  type JudgeOptions,
  openAiJudge,
  type ResponseScore,
  type ScorerQuestion,
  taskScorer,
} from '../../../ts/evaluation/scorers/index.ts';
import { type Verdict, type VerdictReading, verdicts } from '../../../ts/evaluation/scorers/verdicts.ts';
import { scored } from './scoring.ts';

interface Asked {
  path: string;
  key: string | undefined;
  body: {
    model: string;
    messages: { role: string; content: string }[];
    max_tokens: number;
    temperature: number;
  };
}
/** What the server does with a question: a text, a status with headers, or nothing for longer than any patience. */
type Reaction = string | { status: number; headers?: Record<string, string>; body?: string } | 'never';

let server: Server;
let url = '';
let asked: Asked[] = [];
let react: (question: Asked) => Reaction | Promise<Reaction> = () => 'correct';
let underWay = 0;
let most = 0;
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-judge-'));

async function body(request: IncomingMessage): Promise<Asked['body']> {
  let text = '';
  for await (const part of request) text += part;
  return JSON.parse(text);
}

beforeAll(async () => {
  server = createServer(async (request, response) => {
    most = Math.max(most, ++underWay);
    const question = {
      path: request.url!,
      key: request.headers.authorization,
      body: await body(request),
    };
    asked.push(question);
    const reaction = await react(question);
    underWay -= 1;
    if (reaction === 'never') return;
    if (typeof reaction === 'string')
      response
        .setHeader('content-type', 'application/json')
        .end(JSON.stringify({ choices: [{ message: { role: 'assistant', content: reaction } }] }));
    else response.writeHead(reaction.status, reaction.headers).end(reaction.body ?? '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  asked = [];
  most = 0;
});

const client = (more: Partial<JudgeOptions> = {}) =>
  openAiJudge({ url, model: 'judge-1', backoff: 1, retries: 2, apiKey: () => undefined, ...more });
const request = (prompt: string) => ({ prompt, maxTokens: 8, temperature: 0 });

describe('a judge behind an address', () => {
  it('asks as OpenAI-compatible servers want it', async () => {
    react = () => 'fine';
    const judge = client({ apiKey: () => 'secret' });
    expect(await judge.ask({ ...request('how?'), system: 'be fair' })).toBe('fine');
    expect(asked).toEqual([
      {
        path: '/v1/chat/completions',
        key: 'Bearer secret',
        body: {
          model: 'judge-1',
          messages: [
            { role: 'system', content: 'be fair' },
            { role: 'user', content: 'how?' },
          ],
          max_tokens: 8,
          temperature: 0,
        },
      },
    ]);
  });
  it('tries a busy server again, and gives up on one that stays so', async () => {
    let left = 2;
    react = () =>
      left-- > 0 ? { status: left === 1 ? 429 : 503, headers: { 'retry-after': '0' } } : 'at last';
    const judge = client();
    expect(await judge.ask(request('busy'))).toBe('at last');
    expect([judge.calls, judge.failed]).toEqual([3, 0]);
    react = () => ({ status: 500, body: 'out of order' });
    expect(await judge.ask(request('broken'))).toBeNull();
    expect([judge.calls, judge.failed, judge.lastError]).toEqual([6, 1, 'HTTP 500: out of order']);
    // A failure is not remembered.
    react = () => 'well again';
    expect(await judge.ask(request('broken'))).toBe('well again');
  });
  it('does not repeat what the server refuses', async () => {
    react = () => ({ status: 401, body: 'no key' });
    const judge = client();
    expect(await judge.ask(request('refused'))).toBeNull();
    expect([judge.calls, judge.failed, judge.lastError]).toEqual([1, 1, 'HTTP 401: no key']);
  });
  it('waits no longer than it was told, and a missing server is no crash', async () => {
    react = () => 'never';
    const judge = client({ timeout: 40, retries: 1 });
    expect(await judge.ask(request('slow'))).toBeNull();
    expect(judge.calls).toBe(2);
    const nobody = client({ url: 'http://127.0.0.1:9/v1', retries: 0 });
    expect(await nobody.ask(request('hello?'))).toBeNull();
    expect(nobody.failed).toBe(1);
  });
  it('is left at once when it is told so: what is under way, what waits for its turn or for another attempt', async () => {
    const reason = new Error('enough');
    for (const reaction of ['never', { status: 503, headers: { 'retry-after': '60' } }] as const) {
      const stop = new AbortController();
      react = () => {
        setTimeout(() => stop.abort(reason), 20);
        return reaction;
      };
      const judge = client({ concurrency: 1, timeout: 60_000, signal: stop.signal });
      const waiting = ['one', 'two'].map((text) => judge.ask(request(`${text} ${reaction === 'never'}`)));
      expect(await Promise.allSettled(waiting)).toEqual([
        { status: 'rejected', reason },
        { status: 'rejected', reason },
      ]);
      expect([judge.calls, judge.failed]).toEqual([1, 0]);
    }
  });
  it('takes an answer without content for none', async () => {
    react = () => ({ status: 200, body: '{"choices":[]}' });
    const judge = client({ retries: 0 });
    expect(await judge.ask(request('empty'))).toBeNull();
    expect(judge.lastError).toMatch(/no choices/);
  });
  it('keeps so many requests under way and no more', async () => {
    react = async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      return 'ok';
    };
    const judge = client({ concurrency: 3 });
    const replies = await Promise.all(Array.from({ length: 12 }, (_, i) => judge.ask(request(`q${i}`))));
    expect(replies).toEqual(Array(12).fill('ok'));
    expect(most).toBe(3);
  });
  it('remembers answers by their question and model, on disk too, past a torn line', async () => {
    react = ({ body: { model } }) => `by ${model}`;
    const cache = path.join(folder, 'cache');
    const first = client({ cache });
    expect(await Promise.all([first.ask(request('same')), first.ask(request('same'))])).toEqual([
      'by judge-1',
      'by judge-1',
    ]);
    expect([first.calls, first.cached]).toEqual([1, 1]);
    appendFileSync(path.join(cache, 'judge-cache.jsonl'), '{"key":"abc","rep');
    const again = client({ cache });
    expect(await again.ask(request('same'))).toBe('by judge-1');
    expect([again.calls, again.cached]).toEqual([0, 1]);
    expect(await client({ cache, model: 'judge-2' }).ask(request('same'))).toBe('by judge-2');
    expect(await client({ cache }).ask({ ...request('same'), temperature: 1 })).toBe('by judge-1');
    expect(asked).toHaveLength(3);
    expect(readFileSync(path.join(cache, 'judge-cache.jsonl'), 'utf8')).not.toContain('secret');
  });
  it('wants an address', () => {
    expect(() => client({ url: 'judge' })).toThrow(
      /ERR_LIBMOE_ARGUMENT: a judge's address must be an http\(s\) URL, got "judge"/,
    );
  });
});

const says = (reply: string | null): Judge => ({ model: 'm', ask: async () => reply });

async function judged(
  block: { use: string } & Record<string, unknown>,
  response: string,
  question: Partial<ScorerQuestion>,
  judge: Judge,
): Promise<ResponseScore> {
  const scorer = taskScorer('test', block, 'libmoe');
  return scorer.judge!(response, { doc: {}, target: '', choices: [], ...question }, 0, judge);
}

describe('llm_judge', () => {
  const block = {
    use: 'llm_judge',
    prompt: 'Q: {{question}}\nA: {{target}}\nSaid: {{prediction}}',
    verdict: 'correctness',
  };
  it('fills the prompt and reads the verdict', async () => {
    react = () => 'It is Incorrect.';
    const question = { doc: { question: 'Is it?' }, target: 'yes' };
    expect(await judged(block, 'no', question, client())).toMatchObject({
      values: { acc: 0 },
      parsed: 'no',
      detail: { judge: 'judge-1', reply: 'It is Incorrect.' },
    });
    expect(asked[0]!.body.messages[0]!.content).toBe('Q: Is it?\nA: yes\nSaid: no');
  });
  it('a failed judge, or one without a verdict, leaves no number', async () => {
    const question = { doc: { question: 'q' } };
    expect(await judged(block, 'x', question, says(null))).toEqual({
      values: { acc: null },
      parsed: null,
      missing: 'the judge gave no answer',
    });
    expect((await judged(block, 'x', question, says('hm'))).missing).toBe('the judge gave no verdict');
    expect(scored(block, 'x', question)).toMatchObject({ values: { acc: null }, missing: /needs a judge/ });
  });
  it('asks only for what the rules could not read, when it is told to', async () => {
    const first = { use: 'yes_no', profile: 'startswith' };
    const question = { doc: { question: 'q' }, target: 'yes' };
    react = () => 'correct';
    expect((await judged({ ...block, first }, 'Yes!', question, client())).values.acc).toBe(1);
    expect(asked).toHaveLength(0);
    expect((await judged({ ...block, first }, 'Indeed', question, client())).values.acc).toBe(1);
    expect(asked).toHaveLength(1);
    await judged({ ...block, first, ask: 'always' }, 'Yes!', question, client());
    expect(asked).toHaveLength(2);
    // Without a judge the rules stand.
    expect(scored({ ...block, first }, 'Indeed', question)).toMatchObject({
      values: { acc: 0 },
      parsed: null,
    });
  });
  it('HallusionBench: unclear is right without the figure', async () => {
    const unclear = {
      ...block,
      verdict: 'correctness_or_unclear',
      unclear_right: { category: 'VS', figure_id: '0' },
    };
    const at = async (figure_id: string) =>
      (await judged(unclear, 'x', { doc: { question: 'q', category: 'VS', figure_id } }, says('Unclear')))
        .values;
    expect([await at('0'), await at('1')]).toEqual([
      { acc: 1, unclear: 1 },
      { acc: 0, unclear: 1 },
    ]);
  });
  it('MathVerse: extracts, then compares', async () => {
    react = ({ body: { messages } }) => (messages[0]!.content.startsWith('Extract') ? ' 42 ' : '1');
    const steps = {
      ...block,
      verdict: 'one_or_zero',
      extract: 'Extract: {{prediction}}',
      prompt: 'Same? {{extracted}} {{target}}',
    };
    expect(await judged(steps, 'so 42', { target: '42' }, client())).toMatchObject({
      values: { acc: 1 },
      parsed: '42',
    });
    expect(asked.map(({ body: { messages } }) => messages[0]!.content)).toEqual([
      'Extract: so 42',
      'Same? 42 42',
    ]);
  });
  it('typed_answer lets a judge extract', async () => {
    const doc = { question_type: 'free_form', answer_type: 'integer', choices: null, precision: null };
    const typed = { use: 'typed_answer', prompt: 'Extract: {{prediction}}' };
    expect((await judged(typed, 'fourteen', { doc, target: '14' }, says('14'))).values.acc).toBe(1);
    expect((await judged(typed, '14', { doc, target: '14' }, says(null))).values.acc).toBe(1);
    expect((await judged(typed, 'fourteen', { doc, target: '14' }, says(null))).missing).toBeDefined();
  });
});

describe('verdicts', () => {
  const score = (range: [number, number]) => ({ range });
  it.each([
    ['score_pair', '8 9\nBoth are good', {}, { reference_score: 8, model_score: 9 }],
    ['score_pair', '8, 7.5', {}, { reference_score: 8, model_score: 7.5 }],
    ['score_pair', 'Good', {}, undefined],
    // Which of the numbers are the scores is not said.
    ['score_pair', 'Assistant 1: 8, Assistant 2: 9', {}, undefined],
    ['score_pair', '8 9 10', {}, undefined],
    ['score', '0.7', score([0, 1]), { score: 0.7, normalised: 0.7, full_marks: 0 }],
    ['score', '7', score([0, 1]), undefined],
    ['score', 'Rating: 4', score([1, 5]), { score: 4, normalised: 0.75, full_marks: 0 }],
    ['score', '5', score([1, 5]), { score: 5, normalised: 1, full_marks: 1 }],
    ['score', 'none', score([1, 5]), undefined],
    ['yes_no_score', "{'pred': 'yes', 'score': 4}", {}, { acc: 1, score: 4 }],
    ['yes_no_score', '{"pred": "no", "score": "0"}', {}, { acc: 0, score: 0 }],
    ['yes_no_score', '{"pred": "incorrect", "score": 1, "reason": "no"}', {}, { acc: 0, score: 1 }],
    ['yes_no_score', '{"pred": "correct", "score": 4.8}', {}, { acc: 1, score: 4.8 }],
    ['yes_no_score', 'yes', {}, undefined],
    ['correctness', 'Correct', {}, { acc: 1 }],
    ['answer', 'b', { gold: 'B' }, { acc: 1 }],
    ['answer', 'Answer: C. no', { gold: 'C', pattern: /Answer: ([A-D])/u }, { acc: 1 }],
    ['answer', 'None of the choices', { gold: 'C', pattern: /Answer: ([A-D])/u }, { acc: 0 }],
    ['one_or_zero', 'Judgement: 0', {}, { acc: 0 }],
    ['one_or_zero', '10', {}, undefined],
    ['pairwise', 'A', {}, undefined],
  ] as [keyof typeof verdicts, string, VerdictReading, Record<string, number> | undefined][])(
    '%s reads %j',
    (kind, reply, by, values) => {
      const read: Verdict = verdicts[kind];
      expect(read(reply, by)).toEqual(values);
    },
  );
  it.each([
    ['I say [[B>A]]', 1, 1, 'better'],
    ['[[B>>A]]', 1, 2, 'much_better'],
    ['My final verdict is tie: [[A=B]]', 0.5, 0, 'tie'],
    ['[[A>B]]', 0, -1, 'worse'],
    ['[[A>>B]]', 0, -2, 'much_worse'],
  ])('pairwise reads %j', (reply, win, preference, kind) => {
    const none = { much_better: 0, better: 0, tie: 0, worse: 0, much_worse: 0 };
    expect(verdicts.pairwise(reply)).toEqual({
      ...none,
      win,
      preference,
      wins: Number(preference > 0),
      [kind]: 1,
    });
  });
  it('takes a score from where a pattern says', () => {
    const by = { range: [1, 5] as const, pattern: /Rating: (\d)/u };
    expect(verdicts.score('Of 10 points. Rating: 4', by)?.score).toBe(4);
    expect(verdicts.score('no rating', by)).toBeUndefined();
  });
  it.each([
    [{ verdict: 'score' }, /range: \[lowest, highest\] goes with verdict: score/],
    [{ verdict: 'correctness', range: [0, 1] }, /range: \[lowest, highest\] goes with verdict: score/],
    [{ verdict: 'score', range: [5, 1] }, /the lowest score first/],
  ])('a range belongs to a score: %j', (options, message) => {
    expect(() => taskScorer('t', { use: 'llm_judge', prompt: '', ...options }, 'libmoe')).toThrow(message);
  });
});

describe('several', () => {
  const ask = (prompt: string) => ({ use: 'llm_judge', prompt, verdict: 'score', range: [0, 5] });
  const block = { use: 'several', scorers: { detail: ask('Detail?'), context: ask('Context?') } };
  it('asks one judge several questions', async () => {
    react = ({ body: { messages } }) => (messages[0]!.content === 'Detail?' ? '4' : '2');
    expect(await judged(block, 'x', {}, client())).toMatchObject({
      values: { detail: 4, context: 2 },
      parsed: 'x',
      detail: { detail: { reply: '4' }, context: { reply: '2' } },
    });
  });
  it('misses its score when one of them does', async () => {
    react = ({ body: { messages } }) => (messages[0]!.content === 'Detail?' ? '4' : 'hm');
    expect(await judged(block, 'x', {}, client())).toMatchObject({
      values: { detail: 4, context: null },
      missing: 'the judge gave no verdict',
    });
    expect(scored(block, 'x', {}).values).toEqual({ detail: null, context: null });
  });
});

describe('a judge that looks at images', () => {
  const block = { use: 'llm_judge', prompt: 'Rate', verdict: 'score', range: [0, 100], images: true };
  it('gets them as data behind the prompt', async () => {
    react = () => '85';
    const file = path.join(folder, 'dot.jpg');
    writeFileSync(file, 'dot');
    expect((await judged(block, 'a dot', { images: [file] }, client())).values.score).toBe(85);
    expect(asked[0]!.body.messages[0]!.content).toEqual([
      { type: 'text', text: 'Rate' },
      { type: 'image_url', image_url: { url: 'data:image/jpeg;base64,ZG90' } },
    ]);
  });
  it('is not asked without them', async () => {
    expect(await judged(block, 'a dot', {}, client())).toMatchObject({
      values: { score: null },
      missing: 'the judge is to see the images, and they are not at hand',
    });
    expect(asked).toHaveLength(0);
  });
});
