import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SegmentEncoder } from '../../../ts/data/conversations/encoding.ts';
import {
  checkBatch,
  conversationTemplate,
  type ImageSource,
  loadTokenizer,
  openConversations,
  VisionLanguageLoader,
} from '../../../ts/data/index.ts';
import { developmentData } from '../../development-data.ts';

const file = 'vlm_train/llava_v1_5_mix1k.jsonl';
const tokenizerFile = 'tokenizers/hf/llama2.tokenizer.json';
const data = developmentData(file) && developmentData(tokenizerFile);
const cache = mkdtempSync(path.join(tmpdir(), 'libmoe-mix-'));
afterAll(() => rmSync(cache, { recursive: true }));

describe.skipIf(data === undefined)('a thousand conversations of LLaVA 1.5', () => {
  const tokenizer = data === undefined ? undefined : loadTokenizer(path.join(data, tokenizerFile));
  const open = () => openConversations(path.join(data!, file), { cache, onBad: 'stop' });

  it('are all usable, and every answer is learned to the letter', async () => {
    const conversations = await open();
    expect(conversations.length).toBe(1000);
    const seen = conversations.words.filter((words) => words > 0).length;
    console.log(
      `${seen} of 1000 have images; words ${Math.min(...conversations.words.map(Math.abs))} to ${Math.max(...conversations.words.map(Math.abs))}`,
    );
    expect(seen).toBeGreaterThan(500);
    const encoder = new SegmentEncoder(tokenizer!);
    for (const name of ['phi35', 'vicuna']) {
      const template = conversationTemplate(name);
      for (let i = 0; i < conversations.length; ++i) {
        const { turns } = await conversations.read(i);
        const segments = template.render({ turns, images: [], unplaced: [] });
        if (typeof segments === 'string') throw new Error(segments);
        const { ids, learned } = encoder.encode(segments, { addBos: true });
        const answers: number[][] = [];
        for (const [k, id] of ids.entries()) {
          if (learned[k] && !learned[k - 1]) answers.push([]);
          if (learned[k]) answers.at(-1)!.push(id);
        }
        const end = name === 'phi35' ? '<|end|>\n' : '</s>';
        const texts = turns.filter(({ role }) => role === 'assistant').map(({ text }) => text + end);
        const read = answers.map((each) => tokenizer!.decode(each, { skipSpecialTokens: false }));
        expect(read.map((each) => each.replace(/^ /, ''))).toEqual(
          texts.map((each) => each.replace(/^ /, '')),
        );
      }
    }
    await conversations.close();
  }, 300_000);

  it('go through the loader once each, grouped by modality, with black images', async () => {
    const conversations = await open();
    const images: ImageSource = {
      side: 2,
      black: [-1, -1, -1],
      load: async (paths) => paths.map(() => ({ error: 'these data have no images' })),
    };
    const loader = new VisionLanguageLoader(conversations, {
      tokenizer: tokenizer!,
      template: conversationTemplate('vicuna'),
      images,
      onMissingImage: 'black',
      context: 2048,
      tokensPerImage: 256,
      imageTokenId: 0,
      batching: { samples: 32 },
      order: 'modality',
      groups: 4,
      epochs: 1,
      warn: () => {},
    });
    let tokens = 0;
    let mixed = 0;
    for await (const batch of loader) {
      checkBatch(batch, tokenizer!.vocabularySize);
      tokens += batch.ids.length;
      const sequences = batch.sequenceOffsets.length - 1;
      const count = batch.images?.count ?? 0;
      if (count !== 0 && count !== sequences) mixed += 1;
    }
    expect(loader.tally).toMatchObject({
      samples: 1000,
      skipped: 0,
      missingImages: conversations.words.filter((words) => words > 0).length,
    });
    // Only what is left over at the end mixes samples with images and without.
    expect(mixed).toBeLessThanOrEqual(2);
    console.log(`${tokens} tokens, ${JSON.stringify(loader.tally)}`);
    await conversations.close();
  }, 300_000);
});
