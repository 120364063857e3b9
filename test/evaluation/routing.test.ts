import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { evaluate, languageAdapter, type ScoreOptions, type TaskInput } from '../../ts/evaluation/index.ts';
import { RoutingLog } from '../../ts/evaluation/routing-log.ts';
import type { RoutedRequest } from '../../ts/evaluation/routing-tap.ts';
import { generate } from '../../ts/models/language/generate.ts';
import { byteTokenizer } from './fake-model.ts';
import { smallModel } from './small-models.ts';

const mixture = smallModel('mixture', 48);
const folder = mkdtempSync(join(tmpdir(), 'libmoe-routing-'));
afterAll(() => {
  mixture.dispose();
  rmSync(folder, { recursive: true });
});

const prompts = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11, 12], [1, 2, 3, 4, 5, 6, 7, 9], [250, 3]];
async function routed(batchSize: number): Promise<Map<string, readonly RoutedRequest[]>> {
  const seen = new Map<string, readonly RoutedRequest[]>();
  const adapter = languageAdapter(mixture, { tokenizer: byteTokenizer, batchSize });
  const options = (kind: string): ScoreOptions => ({
    routing: (request, layers) => void seen.set(`${kind} ${request}`, layers),
  });
  const generation = { until: [], maxTokens: 4, temperature: 0, seed: 0, repeat: 0 };
  await adapter.generateUntil!(
    prompts.map((context) => ({ kind: 'generate_until', context, generation })),
    () => {},
    options('text'),
  );
  await adapter.loglikelihood(
    prompts.flatMap((context) =>
      [[3, 4, 5], [6]].map((continuation) => ({ kind: 'loglikelihood' as const, context, continuation })),
    ),
    () => {},
    options('score'),
  );
  return seen;
}

describe('routing of an evaluation', () => {
  it('belongs to its request at any batch size, and is what the model does', async () => {
    const one = await routed(1);
    expect(one.size).toBe(15);
    expect(await routed(8)).toEqual(one);
    for (const [i, prompt] of prompts.entries()) {
      const layers = one.get(`text ${i}`)!;
      expect(layers.map(({ layer }) => layer)).toEqual(['0', '1']);
      const made: number[] = [];
      const experts: number[][] = [];
      for await (const { token, routing } of generate(mixture, prompt, { maxTokens: 4, routing: true })) {
        made.push(token);
        experts.push(routing!.flatMap((each) => each.experts));
      }
      const length = prompt.length + 3; // nothing follows the last token
      const [first, second] = layers as [RoutedRequest, RoutedRequest];
      expect([...first.tokens!]).toEqual([...prompt, ...made.slice(0, 3)]);
      expect([...first.positions]).toEqual(Array.from({ length }, (_, at) => at));
      expect([...first.kinds]).toEqual([...prompt.map(() => 1), 2, 2, 2]);
      for (const [step, wanted] of experts.entries()) {
        const at = 2 * (prompt.length - 1 + step);
        expect([...first.experts.slice(at, at + 2), ...second.experts.slice(at, at + 2)]).toEqual(wanted);
      }
    }
    // A shared context runs once: its tokens are those of the first of its requests.
    expect([...one.get('score 0')![0]!.tokens!]).toEqual([...prompts[0]!, 3, 4]);
    expect(one.get('score 0')![0]!.kinds.filter((kind) => kind === 2)).toHaveLength(2);
  });

  it('is kept beside the answers and asked for again where it is not', async () => {
    const task: TaskInput = {
      task: 'toy',
      documents: [
        { q: 'a b', a: 'x', category: 'one' },
        { q: 'c', a: 'y' },
      ],
      output_type: 'generate_until',
      doc_to_text: 'q',
      doc_to_target: 'a',
      generation_kwargs: { until: [], max_new_tokens: 3 },
    };
    const run = async (routing: boolean): Promise<number> => {
      const adapter = languageAdapter(mixture, { tokenizer: byteTokenizer });
      const steps = evaluate(adapter, { tasks: [task], out: folder, routing, bootstrapResamples: 10 });
      for (;;) {
        const step = await steps.next();
        if (step.done) return step.value.libmoe.requests.from_journal;
      }
    };
    expect(await run(false)).toBe(0);
    expect(await run(true)).toBe(0); // answered before, but without routing
    expect(await run(true)).toBe(2);
    const lines = readFileSync(join(folder, 'routing.requests.jsonl'), 'utf8').trim().split('\n');
    const entries = lines.map((line) => JSON.parse(line));
    expect(entries.filter(({ key }) => key === undefined)).toEqual([{ session: 1 }, { session: 2 }]);
    expect(entries.filter(({ key }) => key !== undefined).map((entry) => entry.for[0])).toEqual(
      expect.arrayContaining([
        { task: 'toy', doc_id: 0, index: 0, category: 'one' },
        { task: 'toy', doc_id: 1, index: 0 },
      ]),
    );

    // A process beside the one that did it has nothing left to do, and keeps nothing twice.
    const adapter = languageAdapter(mixture, { tokenizer: byteTokenizer });
    const share = { rank: 1, world: 2 };
    const steps = evaluate(adapter, { tasks: [task], out: folder, routing: true, share });
    for (;;) {
      const step = await steps.next();
      if (!step.done) continue;
      expect(step.value.libmoe.requests).toEqual({ total: 2, from_journal: 2 });
      break;
    }
    expect(readFileSync(join(folder, 'routing.1.requests.jsonl'), 'utf8')).toBe('{"session":1}\n');
  });

  it('of another process that works beside is not asked for again', async () => {
    const beside = join(folder, 'beside');
    using first = new RoutingLog(beside, { rank: 0, world: 2 });
    using second = new RoutingLog(beside, { rank: 1, world: 2 });
    first.put('a', [], []);
    first.flush();
    expect(second.has('a')).toBe(false);
    second.readOthers();
    expect(second.has('a')).toBe(true);
    first.readOthers();
    expect(first.has('b')).toBe(false);
  });
});
