import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type EvalModel,
  evaluate,
  type Results,
  rescore,
  resolveTask,
  type TokenScore,
} from '../../ts/evaluation/index.ts';
import { languageAdapter } from '../../ts/evaluation/language-adapter.ts';
import { lastWordFrom, lastWordTokens } from '../../ts/evaluation/last-word.ts';
import { LanguageModel } from '../../ts/models/language/model.ts';
import { byteTokenizer, pieceTokenizer } from './fake-model.ts';

describe('the last word of a text (vectors of the specification)', () => {
  const pieces = [' the', ' dog', ' ca', 'ts', ' cat', 's', ' x'];
  const tokenizer = pieceTokenizer(pieces, { decode: (ids) => ids.map((id) => pieces[id]).join('') });
  const judged = (text: string, change: Record<number, string> = {}) => {
    const tokens = tokenizer.encode(text);
    const continuation = tokens.slice(1);
    const said = tokens.map((token, i) => (i in change ? pieces.indexOf(change[i]!) : token)).slice(1);
    const last = Math.min(continuation.length, lastWordTokens(text, tokenizer));
    return lastWordFrom(
      text,
      continuation,
      {
        firstChoices: said.slice(-last),
        logProbabilities: continuation.map((_, i) => -1 - i).slice(-last),
      },
      tokenizer,
    );
  };
  const text = ' the dog the dog the dog cats'; // its last tokens: " cat", "s"

  it.each([
    ['all as it is', {}, 1, 1],
    ['the first piece another', { 6: ' x' }, 0, 1],
    ['the last piece another', { 7: ' x' }, 0, 0],
    ['the word cut otherwise', { 6: ' ca', 7: 'ts' }, 1, 0],
    ['an earlier word another', { 4: ' x' }, 1, 1],
  ] as const)('%s', (_, change, right, lastToken) => {
    expect(judged(text, change)).toEqual({ right: [right, right], lastToken, loss: 6.5 });
  });

  it('of a text with fewer predictions than the word has characters is wrong in the original', () => {
    expect(judged(' the dog cats')).toMatchObject({ right: [0, 1], lastToken: 1, loss: 2.5 });
  });
});

describe('a model that is asked for last words', () => {
  const model = new LanguageModel(
    {
      ...{ vocabularySize: 258, dModel: 32, layers: 2, heads: 4, maxPositions: 48 },
      feedForward: { hidden: 48 },
      init: { std: 0.3 },
    },
    { seed: 3 },
  );
  const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-last-word-'));
  afterAll(() => {
    model.dispose();
    rmSync(folder, { recursive: true });
  });
  const adapter = languageAdapter(model, { tokenizer: byteTokenizer });
  // The second is longer than the model's 48 positions.
  const texts = ['one two three', 'a long way to the town where nobody had ever been before they came'];
  const task = {
    ...resolveTask('lm.lambada'),
    dataset_path: 'inline',
    documents: texts.map((text) => ({ text })),
  };
  const run = async (asked: EvalModel): Promise<Results> => {
    const going = evaluate(asked, { tasks: [task], out: folder, bootstrapResamples: 50 });
    for (;;) {
      const step = await going.next();
      if (step.done) return step.value;
    }
  };
  const ask = async (context: string, continuation: string): Promise<TokenScore> => {
    let answer: TokenScore | undefined;
    const window = byteTokenizer.encode(context + continuation).slice(-49);
    const { length } = byteTokenizer.encode(continuation);
    const request = {
      kind: 'loglikelihood' as const,
      context: window.slice(0, -length),
      continuation: window.slice(-length),
    };
    await adapter.loglikelihood([request], (_, score) => {
      answer = score;
    });
    return answer!;
  };

  it('gives what single questions give, and the journal and rescoring keep it', async () => {
    const results = await run(adapter);
    const row = results.results['lm.lambada']!;
    // The first text fits into one window, so plain questions see the same.
    const first = texts[0]!;
    const { sum } = await ask(first.slice(0, -6), ' three');
    const { greedy } = await ask(first.slice(0, -1), 'e');
    const samples = readFileSync(path.join(folder, 'samples_lm.lambada.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(samples[0].last_word_perplexity).toBeCloseTo(-sum / 6, 5);
    expect(samples[0].last_token).toBe(Number(greedy));
    // The second takes two windows; the last one sees 48 tokens before each of its own.
    const second = await ask(texts[1]!.slice(0, -5), ' came');
    expect(samples[1].last_word_perplexity).toBeCloseTo(-second.sum / 5, 5);
    expect(row['last_word_perplexity,none']).toBeCloseTo(
      Math.exp((samples[0].last_word_perplexity + samples[1].last_word_perplexity) / 2),
      9,
    );
    expect(row['token_loss,none']).toBeCloseTo(Math.log(row['token_perplexity,none'] as number), 9);
    const tokens = texts.reduce((all, text) => all + text.length - 1, 0);
    const sums = samples.reduce((all, { libmoe }) => all + libmoe.sums[0], 0);
    expect(row['token_loss,none']).toBeCloseTo(-sums / tokens, 9);

    const silent: EvalModel = {
      ...{ name: adapter.name, tokenizer: byteTokenizer, maxLength: 48, endTokens: adapter.endTokens! },
      fingerprint: () => adapter.fingerprint(),
      loglikelihood: () => Promise.reject(new Error('asked again')),
      loglikelihoodRolling: () => Promise.reject(new Error('asked again')),
    };
    expect((await run(silent)).results).toEqual(results.results);
    expect((await rescore(folder, { bootstrapResamples: 50 })).results).toEqual(results.results);
  });
});
