import { describe, expect, it } from 'vitest';
import { packSequences } from '../../../ts/models/language/index.ts';
import { generateWithImages } from '../../../ts/models/vision-language/index.ts';
import { memory, noGrad, scope, tensor } from '../../../ts/tensor/index.ts';
import { someIds, tinyMoe } from '../tiny.ts';
import { someImages, tinyVlm, withImageAt } from './tiny-vlm.ts';

describe('generation with images', () => {
  it('decodes from the cache what whole passes give, bit for bit, token by token', async () => {
    using model = tinyVlm({ language: tinyMoe });
    const ids = withImageAt(someIds(7), [1, 4]);
    const images = someImages([1, 8]);
    using pixels = tensor(images.pixels, [2, 3, 8, 8]);
    noGrad(() =>
      scope(() => model.forward({ ...packSequences([[...ids, 1, 2, 3, 4, 5]]), images }).toArray()),
    ); // makes the tables of positions
    const before = memory().tensors;
    const tokens: number[] = [];
    const probabilities: number[] = [];
    const options = { maxTokens: 5, routing: true };
    for await (const made of generateWithImages(model, { ids, pixels, starts: images.starts }, options)) {
      tokens.push(made.token);
      probabilities.push(made.logProbability);
      expect(made.routing!.map(({ layer }) => layer)).toEqual(['1']);
    }
    expect(tokens).toHaveLength(5);
    expect(memory().tensors).toBe(before);
    const whole = [...ids];
    for (const [i, token] of tokens.entries()) {
      const logits = noGrad(() =>
        scope(() => {
          const hidden = model.forward({ ...packSequences([whole]), images });
          return model.logits(hidden).toArray().slice(-50);
        }),
      );
      const best = logits.indexOf(Math.max(...logits));
      const total = Math.log(logits.reduce((sum, l) => sum + Math.exp(l - logits[best]!), 0));
      expect(token).toBe(best);
      expect(probabilities[i]).toBe(logits[best]! - (logits[best]! + total));
      if (token === 49) break; // as a token of its own the image token cannot be packed again
      whole.push(token);
    }
  });

  it('refuses images that do not fit the prompt', async () => {
    using model = tinyVlm();
    const images = someImages([1]);
    using pixels = tensor(images.pixels, [1, 3, 8, 8]);
    const ids = withImageAt(someIds(7), [1, 4]);
    const first = generateWithImages(model, { ids, pixels, starts: images.starts }).next();
    await expect(first).rejects.toThrow(/ERR_LIBMOE_DATA.*8 tokens 49.*4 rows/);
  });
});
