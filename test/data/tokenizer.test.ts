import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { compareCodePoints } from '../../ts/data/bpe-merges.ts';
import {
  loadTokenizer,
  type Tokenizer,
  type TokenizerTrainingOptions,
  type TrainedTokenizer,
  tokenizerFromJson,
  trainTokenizer,
  writeTokenizer,
} from '../../ts/data/index.ts';
import { copyTokenizer } from '../../ts/experiment/index.ts';
import { codeOf, packageRoot } from '../../ts/native/index.ts';

interface Case {
  name: string;
  options: TokenizerTrainingOptions;
}
interface Golden {
  pieces: string[];
  sentencepiece: number[][];
  tokenizers: number[][];
  decoded: string[];
}

const folder = new URL('../golden/tokenizer/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');
const mixed = read('mixed.txt');
const probes = JSON.parse(read('probes.json')) as string[];
const cases = JSON.parse(read('cases.json')) as Case[];
const golden = (JSON.parse(read('golden.json')) as { cases: Record<string, Golden> }).cases;
const scratch = mkdtempSync(join(tmpdir(), 'libmoe-tokenizer-'));
const shared = ['../shared/data', '../../shared/data']
  .map((path) => join(packageRoot, path))
  .find(existsSync);

async function codeFrom(action: () => unknown): Promise<string | undefined> {
  try {
    await action();
  } catch (error) {
    return codeOf(error);
  }
  return undefined;
}

describe.each(cases)('vocabulary "$name"', ({ name, options }) => {
  const expected = golden[name]!;
  let trained: TrainedTokenizer;
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    trained = await trainTokenizer([mixed], options);
    tokenizer = loadTokenizer(writeTokenizer(join(scratch, name), trained));
  });

  it('has the pieces of SentencePiece', () => {
    expect(trained.pieces).toEqual(expected.pieces);
  });

  it('gives the ids that the tokenizers library reads from the same file', () => {
    expect(probes.map((text) => Array.from(tokenizer.encode(text)))).toEqual(expected.tokenizers);
  });

  it('gives the ids of SentencePiece, but for two texts at the edge', () => {
    // A literal word mark stands for itself there under "identity", and a symbol at the start gets a mark before it.
    const differing = probes.filter(
      (text, i) => String(tokenizer.encode(text)) !== String(expected.sentencepiece[i]),
    );
    const known: Record<string, string[]> = { plain: ['\u2581mark \u2581'], symbols: ['<STORY_SEP>'] };
    expect(differing).toEqual(known[name] ?? []);
  });

  it('decodes as the tokenizers library does', () => {
    expect(expected.tokenizers.map((ids) => tokenizer.decode(ids))).toEqual(expected.decoded);
  });

  it('encodes words on the fast way as the general engine does', () => {
    // One more step in the normaliser changes nothing but makes the file unknown to the fast way.
    const steps = [...(trained.json.normalizer as { normalizers: object[] }).normalizers, { type: 'NFC' }];
    const general = tokenizerFromJson(
      { ...trained.json, normalizer: { type: 'Sequence', normalizers: steps } },
      trained.config,
    );
    const texts = [...probes, ...mixed.split('\n')].map((text) => text.normalize('NFC'));
    expect(texts.map((text) => String(tokenizer.encode(text)))).toEqual(
      texts.map((text) => String(general.encode(text))),
    );
  });
});

describe('trained tokenizers', () => {
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    tokenizer = loadTokenizer(
      writeTokenizer(join(scratch, 'bytes'), await trainTokenizer([mixed], cases[2]!.options)),
    );
  });

  it('gets back every text of single-spaced normalised words', () => {
    const word = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 8 })
      .map((text) => text.normalize('NFKC'));
    const clean = /^[^\s\p{C}\u2581\uff5e\ufffd<>]+$/u;
    fc.assert(
      fc.property(
        fc.array(
          word.filter((text) => clean.test(text)),
          { minLength: 1 },
        ),
        (words) => {
          const text = words.join(' ').normalize('NFKC');
          expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
        },
      ),
      { seed: 11, numRuns: 300 },
    );
  });

  it('names its special tokens and leaves them to the caller', () => {
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.vocabularySize]).toEqual([
      1,
      2,
      undefined,
      640,
    ]);
    expect(tokenizer.idToToken(2)).toBe('</s>');
    expect(tokenizer.tokenToId('</s>')).toBe(2);
    expect(tokenizer.decode([1, ...tokenizer.encode('the end'), 2])).toBe('the end');
    expect(tokenizer.decode([2], { skipSpecialTokens: false })).toContain('</s>');
    expect(Array.from(tokenizer.encode('the'))).toEqual(
      Array.from(tokenizer.encode('the', { addSpecialTokens: true })),
    );
  });

  it('has a hash that follows the content', async () => {
    const other = await trainTokenizer([mixed], { ...cases[2]!.options, vocabularySize: 641 });
    expect(tokenizer.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(tokenizerFromJson(other.json).hash).not.toBe(tokenizer.hash);
  });

  it('refuses ids outside the vocabulary and text that is none', async () => {
    expect(await codeFrom(() => tokenizer.decode([640]))).toBe('ERR_LIBMOE_TOKENIZER');
    expect(await codeFrom(() => tokenizer.decode([1.5]))).toBe('ERR_LIBMOE_TOKENIZER');
    expect(await codeFrom(() => tokenizer.encode(5 as unknown as string))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.encode('half \ud83d a pair').length).toBeGreaterThan(3);
  });
});

describe('trainTokenizer', () => {
  it('turns the event loop while it merges, and stops at a signal', async () => {
    // Random words: many merges.
    let state = 1;
    const random = (n: number) => {
      state = (state * 48271) % 2147483647;
      return state % n;
    };
    const letters = 'abcdefghijklmnopqrstuvwxyz';
    const word = () => Array.from({ length: 3 + random(9) }, () => letters[random(26)]).join('');
    const text = Array.from({ length: 8_000 }, word).join(' ');
    const options = { vocabularySize: 2500 };
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 1);
    await trainTokenizer([text], options);
    clearInterval(timer);
    // None without a pause; how many there are depends on the machine.
    expect(turns).toBeGreaterThan(0);
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 1);
    expect(await codeFrom(() => trainTokenizer([text], { ...options, signal: stop.signal }))).toBe(
      'ERR_LIBMOE_STOPPED',
    );
  });

  it('does not depend on how the text is handed over', async () => {
    const options = { vocabularySize: 420 };
    async function* lines(): AsyncGenerator<string> {
      yield* mixed.split('\n');
    }
    expect((await trainTokenizer(lines(), options)).pieces).toEqual(golden.default!.pieces);
    expect((await trainTokenizer([mixed], { ...options, sentences: 'texts' })).pieces).toEqual(
      golden.default!.pieces,
    );
  });

  it('leaves out sentences above the limit and counts them', async () => {
    const { statistics } = await trainTokenizer([mixed, 'x'.repeat(5000)], {
      vocabularySize: 420,
      maxSentenceBytes: 4192,
    });
    expect(statistics.skippedSentences).toBe(1);
  });

  it.each([
    ['a vocabulary of no size', [mixed], { vocabularySize: 0 }, 'ERR_LIBMOE_ARGUMENT'],
    ['a vocabulary below the alphabet', [mixed], { vocabularySize: 20 }, 'ERR_LIBMOE_TOKENIZER'],
    [
      'a vocabulary above what the text gives',
      ['only these words'],
      { vocabularySize: 500 },
      'ERR_LIBMOE_TOKENIZER',
    ],
    ['no text', [], { vocabularySize: 100 }, 'ERR_LIBMOE_TOKENIZER'],
    ['text of spaces', [' \n '], { vocabularySize: 100 }, 'ERR_LIBMOE_TOKENIZER'],
    ['numbers as text', [5 as unknown as string], { vocabularySize: 100 }, 'ERR_LIBMOE_ARGUMENT'],
    ['a token twice', [mixed], { vocabularySize: 420, specialTokens: ['<s>'] }, 'ERR_LIBMOE_ARGUMENT'],
    ['a coverage of 2', [mixed], { vocabularySize: 420, characterCoverage: 2 }, 'ERR_LIBMOE_ARGUMENT'],
  ])('refuses %s', async (_, texts, options, code) => {
    expect(await codeFrom(() => trainTokenizer(texts, options))).toBe(code);
  });

  it('orders texts by code point, not by UTF-16 unit', () => {
    const texts = ['a', 'ab', '\uffee', '\u{1f680}', '\ud7ff', '\u{10ffff}', '\ue000'];
    const byBytes = [...texts].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect([...texts].sort(compareCodePoints)).toEqual(byBytes);
  });
});

describe('loadTokenizer', () => {
  const file = (name: string, content: string | Uint8Array): string => {
    writeFileSync(join(scratch, name), content);
    return join(scratch, name);
  };

  it.each([
    ['a missing file', () => join(scratch, 'nothing.json'), 'ERR_LIBMOE_FILE'],
    ['a folder without tokenizer', () => mkdtempSync(join(scratch, 'empty-')), 'ERR_LIBMOE_FILE'],
    ['text that is not JSON', () => file('broken.json', '{"model": '), 'ERR_LIBMOE_TOKENIZER'],
    ['JSON of something else', () => file('other.json', '{"hello": 1}'), 'ERR_LIBMOE_TOKENIZER'],
    [
      'an unknown model type',
      () => file('type.json', '{"model": {"type": "Magic", "vocab": {}}}'),
      'ERR_LIBMOE_TOKENIZER',
    ],
    [
      'an unknown decoder',
      () => file('dec.json', '{"model":{"type":"BPE","vocab":{},"merges":[]},"decoder":{"type":"X"}}'),
      'ERR_LIBMOE_TOKENIZER',
    ],
    [
      'a llama2c file that is cut off',
      () => file('cut.bin', llama2c().subarray(0, 1000)),
      'ERR_LIBMOE_TOKENIZER',
    ],
    [
      'a .bin of something else',
      () => file('else.bin', new Uint8Array(64).fill(255)),
      'ERR_LIBMOE_TOKENIZER',
    ],
  ])('refuses %s', async (_, path, code) => {
    expect(await codeFrom(() => loadTokenizer(path()))).toBe(code);
  });

  it('reads llama2c files and joins by score', () => {
    const tokenizer = loadTokenizer(file('tiny.bin', llama2c()));
    expect([tokenizer.vocabularySize, tokenizer.bosId, tokenizer.eosId]).toEqual([264, 1, 2]);
    // "ab" has the better score than "bc", so " abc" becomes " ", "ab", then byte-spelt "c".
    expect(Array.from(tokenizer.encode('abc', { addSpecialTokens: true }))).toEqual([1, 259, 262, 3 + 99]);
    expect(tokenizer.decode(tokenizer.encode('abc é\n'))).toBe('abc é\n');
  });

  it('finds a llama2c tokenizer that was copied into a checkpoint folder, and any other', () => {
    const to = mkdtempSync(join(scratch, 'checkpoint-'));
    const given = file('tiny.bin', llama2c());
    copyTokenizer(given, to);
    expect(loadTokenizer(to).hash).toBe(loadTokenizer(given).hash);
    const from = mkdtempSync(join(scratch, 'named-'));
    writeFileSync(join(from, 'mine.json'), '{}');
    writeFileSync(join(from, 'tokenizer_config.json'), '{"bos_token": "<s>"}');
    copyTokenizer(join(from, 'mine.json'), to);
    expect(readdirSync(to).sort()).toEqual(['tokenizer.bin', 'tokenizer.json', 'tokenizer_config.json']);
  });
});

/** Ids 259… are " ", "a", "b", "ab", "bc". */
function llama2c(): Buffer {
  const pieces = [
    '<unk>',
    '\n<s>\n',
    '\n</s>\n',
    ...Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16)}>`),
    ' ',
    'a',
    'b',
    'ab',
    'bc',
  ];
  const parts = [Buffer.alloc(4)];
  parts[0]!.writeInt32LE(8);
  for (const [id, piece] of pieces.entries()) {
    const head = Buffer.alloc(8);
    head.writeFloatLE(id < 259 ? 0 : -id);
    head.writeInt32LE(Buffer.byteLength(piece), 4);
    parts.push(head, Buffer.from(piece));
  }
  return Buffer.concat(parts);
}

const golds = shared === undefined ? [] : ['tokenizers/llama/tokenizer.bin'];
describe.skipIf(golds.length === 0)('tokenizers of real models (../shared/data)', () => {
  it.each(golds)('%s gives the golden ids of Llama', (name) => {
    const tokenizer = loadTokenizer(join(shared!, name));
    const lines = (
      JSON.parse(readFileSync(join(shared!, 'tokenizers/sentencepiece/golden_ids.json'), 'utf8')) as {
        llama_bpe_wikitext: [string, number[]][];
      }
    ).llama_bpe_wikitext;
    expect(lines).toHaveLength(100);
    // "<unk>" written in the text is the token to one library and five characters to the other.
    for (const [text, ids] of lines.filter(([text]) => !text.includes('<unk>'))) {
      expect(Array.from(tokenizer.encode(text)), text).toEqual(ids);
    }
  });

  it('stories260K speaks', () => {
    const tokenizer = loadTokenizer(join(shared!, 'weights/llama2c/tok512.bin'));
    const { greedy_tokens: tokens } = JSON.parse(
      readFileSync(join(shared!, 'weights/llama2c/golden_f64.json'), 'utf8'),
    ) as { greedy_tokens: number[] };
    expect(tokenizer.decode(tokens)).toMatch(/^Once upon a time, there was a little girl named Lily\./);
    expect(Array.from(tokenizer.encode('Once upon a time', { addSpecialTokens: true }))).toEqual(
      tokens.slice(0, 5),
    );
  });
});
