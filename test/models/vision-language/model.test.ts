import { describe, expect, it } from 'vitest';
import { KvCache, packSequences } from '../../../ts/models/language/index.ts';
import { expandPlaceholders, rowsOfImages } from '../../../ts/models/vision-language/index.ts';
import { ForwardContext } from '../../../ts/moe/index.ts';
import { add, scale } from '../../../ts/tensor/elementwise.ts';
import { memory, noGrad, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { someIds, tinyMoe } from '../tiny.ts';
import { imageToken, someImages, tinyVlm, withImageAt } from './tiny-vlm.ts';

const packed = (sequences: number[][], starts: number[]) => ({
  ...packSequences(sequences),
  images: someImages(starts),
});
const targetsOf = (ids: Int32Array): Int32Array =>
  ids.map((_, i) => (ids[i + 1] === undefined || ids[i + 1] === imageToken ? -1 : ids[i + 1]!));

/** Backward of a loss and all auxiliary losses of a pass, so that nothing of it stays; returns the latter. */
function backward(loss: Tensor, context: ForwardContext) {
  const losses = context.losses();
  losses.reduce((sum, { value, coefficient }) => add(sum, scale(value, coefficient)), loss).backward();
  return losses;
}

describe('a vision-language model', () => {
  it('puts image rows where the image tokens are, and packs sequences apart', () => {
    using model = tinyVlm();
    const text = someIds(9);
    const one = withImageAt(text, [3]);
    const two = withImageAt(someIds(7, 2), [0, 5]);
    const whole = noGrad(() =>
      scope(() => model.forward(packed([one, someIds(5, 4), two], [3, 18, 27])).toArray()),
    );
    // The same by hand: embeddings and projected features, row by row.
    const byHand = noGrad(() =>
      scope(() => {
        const images = someImages([0, 0, 0]);
        const features = model.imageFeatures(tensor(images.pixels, [3, 3, 8, 8]));
        const inserted = {
          rows: features,
          at: Int32Array.of(3, 4, 5, 6, 18, 19, 20, 21, 27, 28, 29, 30),
          from: Int32Array.from({ length: 12 }, (_, i) => i),
        };
        return model.language.forward({ ...packSequences([one, someIds(5, 4), two]), inserted }).toArray();
      }),
    );
    expect(whole).toEqual(byHand);
    // Each sequence alone gives the same bits.
    const alone = noGrad(() =>
      scope(() => model.forward({ ...packSequences([one]), images: someImages([3]) }).toArray()),
    );
    expect(whole.slice(0, one.length * 24)).toEqual(alone);
    const textAlone = noGrad(() =>
      scope(() => model.language.forward(packSequences([someIds(5, 4)])).toArray()),
    );
    expect(whole.slice(13 * 24, 18 * 24)).toEqual(textAlone);
  });

  it('has gradients in every part, which agree with differences', () => {
    using model = tinyVlm({ projector: { type: 'mlp3x_gelu', activation: 'geluTanh' } });
    const ids = withImageAt(someIds(6), [2]);
    const batch = { ...packed([ids], [2]), targets: targetsOf(Int32Array.from(ids)) };
    scope(() => model.loss(batch).backward());
    const loss = (): number => noGrad(() => scope(() => model.loss(batch).item()));
    for (const name of ['vision.patches.weight', 'projector.layers.1.weight', 'language.embedding.weight']) {
      const parameter = model.namedParameters().get(name)!;
      const values = parameter.toArray();
      const at = name.startsWith('language') ? 24 * ids[0]! + 3 : 5;
      const moved = (by: number): number => {
        parameter.write(values.map((v, i) => (i === at ? v + by : v)));
        return loss();
      };
      const slope = (moved(3e-3) - moved(-3e-3)) / 6e-3;
      parameter.write(values);
      expect(Math.abs(parameter.grad!.toArray()[at]! - slope)).toBeLessThan(2e-3 * Math.abs(slope) + 3e-4);
      expect(Math.abs(slope)).toBeGreaterThan(1e-5);
    }
    // The image token's own embedding is replaced, and learns nothing.
    const embedding = model.language.embedding.weight.grad!.toArray();
    expect(embedding.slice(24 * imageToken).every((g) => g === 0)).toBe(true);
    model.zeroGrad();
  });

  it('decodes and prefills in pieces with the bits of a whole pass, an image cut between pieces', () => {
    using model = tinyVlm({ language: tinyMoe });
    const ids = withImageAt(someIds(8), [3]);
    const images = someImages([3]);
    noGrad(() =>
      scope(() => {
        const whole = model.forward({ ...packSequences([ids]), images }).toArray();
        const rows = model.imageFeatures(tensor(images.pixels, [1, 3, 8, 8]));
        using cache = new KvCache(model.language.config);
        const sequence = cache.add();
        const out: number[] = [];
        for (const [begin, end] of [
          [0, 5],
          [5, 10],
          [10, 11],
          [11, 12],
        ] as const) {
          const here = [3, 4, 5, 6].filter((t) => t >= begin && t < end);
          const inserted = {
            rows,
            at: Int32Array.from(here, (t) => t - begin),
            from: Int32Array.from(here, (t) => t - 3),
          };
          const part = { ...packSequences([ids.slice(begin, end)]), inserted };
          out.push(...model.language.forward(part, undefined, cache.at([sequence])).toArray());
        }
        expect(out).toEqual(whole);
        // The whole prompt through the model itself.
        const other = cache.add();
        const cached = model.forward({ ...packSequences([ids]), images }, undefined, cache.at([other]));
        expect(cached.toArray()).toEqual(whole);
      }),
    );
  });

  it('averages auxiliary losses over layers and passes of the tower, and keeps the parts apart', () => {
    const moe = { experts: 4, topK: 2 };
    using model = tinyVlm({
      tower: { moe: true, scales: 2 },
      projector: {
        type: 'moe',
        moe: { ...moe, router: { name: 'smoe', balanceCoefficient: 0.5, zCoefficient: 0.25 } },
      },
      language: tinyMoe,
    });
    const ids = withImageAt(someIds(6), [2]);
    const batch = { ...packed([ids], [2]), targets: targetsOf(Int32Array.from(ids)) };
    using context = new ForwardContext({ training: true });
    scope(() => {
      const losses = backward(model.loss(batch, context), context);
      const named = (layer: string, name: string) =>
        losses.filter((loss) => loss.layer === layer && loss.name === name);
      // Two layers, two passes: each value is halved, each coefficient too.
      const plain = tinyVlm({ tower: { moe: true, scales: 1 }, language: tinyMoe });
      using single = new ForwardContext({ training: true });
      noGrad(() => plain.vision.forward(tensor(batch.images.pixels, [1, 3, 8, 8]), single));
      for (const layer of ['vision.0', 'vision.1']) {
        const [first, second, ...more] = named(layer, 'balance');
        const alone = single.losses().find((loss) => loss.layer === layer && loss.name === 'balance')!;
        expect(more).toEqual([]);
        expect(first!.coefficient).toBeCloseTo(0.01 / 2, 12);
        expect(first!.value.item() + second!.value.item()).toBeCloseTo(alone.value.item(), 6);
      }
      plain.dispose();
      expect(named('projector', 'balance').map(({ coefficient }) => coefficient)).toEqual([0.5]);
      expect(named('projector', 'routerZ').map(({ coefficient }) => coefficient)).toEqual([0.25]);
      expect(named('1', 'balance')).toHaveLength(1);
      expect(context.records.map(({ layer, call }) => `${layer}/${call}`)).toEqual([
        'vision.0/0',
        'vision.1/0',
        'vision.0/1',
        'vision.1/1',
        'projector/0',
        '1/0',
      ]);
    });
    model.zeroGrad();
  });

  it('hands no logits of one part to the routers of another', () => {
    // moe++ adds a map of the logits of the layer before, and refuses those of other tokens: LLM layer 1 follows tower and projector, all with lower indices.
    const router = { name: 'moe++' };
    using model = tinyVlm({
      tower: { moe: true, router, scales: 2 },
      projector: {
        type: 'moe',
        moe: { experts: 4, topK: 2, router: { ...router, copyExperts: 0, constantExperts: 0 } },
      },
      language: { ...tinyMoe, moe: { ...tinyMoe.moe!, router } },
    });
    const ids = withImageAt(someIds(6), [2]);
    const out = noGrad(() => scope(() => model.forward(packed([ids], [2])).toArray()));
    expect(out.every(Number.isFinite)).toBe(true);
  });

  it('recomputes with the gradients of keeping, and keeps nothing of what is frozen', () => {
    const build = () =>
      tinyVlm({
        tower: { moe: true },
        projector: { type: 'moe', moe: { experts: 4, topK: 2 } },
        language: tinyMoe,
      });
    const ids = withImageAt(someIds(20), [2, 9]);
    const batch = { ...packed([ids], [2, 13]), targets: targetsOf(Int32Array.from(ids)) };
    const gradients = (again: boolean) => {
      using model = build();
      model.activationCheckpointing = again;
      expect(model.activationCheckpointing).toBe(again);
      expect(model.projector.activationCheckpointing).toBe(again);
      using context = new ForwardContext({ training: true });
      scope(() => backward(model.loss(batch, context), context));
      const found = [...model.namedParameters()].map(([name, p]) => [name, p.grad?.toArray()]);
      model.zeroGrad();
      return found;
    };
    expect(gradients(true)).toEqual(gradients(false));
    // Frozen tower: what the pass leaves does not grow with it.
    const left = (freeze: boolean): number => {
      using model = build();
      if (freeze) model.vision.setRequiresGrad(false);
      using context = new ForwardContext({ training: true });
      const before = memory().tensors;
      const loss = scope(() => model.loss(batch, context));
      const kept = memory().tensors - before;
      const losses = scope(() => backward(loss, context));
      expect(losses.some(({ layer }) => layer.startsWith('vision'))).toBe(!freeze);
      if (freeze) expect(model.vision.parameters().every(({ grad }) => grad === undefined)).toBe(true);
      expect(model.projector.parameters().some(({ grad }) => grad !== undefined)).toBe(true);
      loss.dispose();
      model.zeroGrad();
      return kept;
    };
    expect(left(true)).toBeLessThan(left(false) - 10);
  });

  it('has the losses and records of every layer on a rank without images, counting nothing', () => {
    using model = tinyVlm({
      tower: { moe: true },
      projector: { type: 'moe', moe: { experts: 4, topK: 2 } },
      language: tinyMoe,
    });
    const text = packSequences([withImageAt(someIds(6), [])]);
    const layers = (ranks: number | undefined): string[] => {
      using context = new ForwardContext({ training: true, ...(ranks && { ranks }) });
      scope(() => {
        const loss = model.loss({ ...text, targets: targetsOf(text.ids) }, context);
        for (const { layer, value } of backward(loss, context))
          if (layer.startsWith('vision') || layer === 'projector') expect(value.item()).toBe(0);
      });
      model.zeroGrad();
      return context.records.map(({ layer }) => layer);
    };
    expect(layers(undefined)).toEqual(['1']);
    expect(layers(2)).toEqual(['vision.0', 'vision.1', 'projector', '1']);
    // The zero image of LibMoE: through the tower, counted only as LibMoE does.
    for (const compat of ['fixed', 'libmoe'] as const) {
      using other = tinyVlm({ tower: { moe: true }, compat });
      const images = { ...someImages([-1]), pixels: new Float32Array(192) };
      using context = new ForwardContext({ training: true });
      const value = scope(() => {
        const loss = other.loss({ ...text, targets: targetsOf(text.ids), images }, context);
        return backward(loss, context)
          .find(({ layer, name }) => layer === 'vision.0' && name === 'balance')!
          .value.item();
      });
      expect(value > 0).toBe(compat === 'libmoe');
    }
  });

  it('says which image does not fit its tokens', () => {
    using model = tinyVlm();
    const ids = withImageAt(someIds(6), [2]);
    const refused = (sequences: number[][], starts: number[], message: RegExp): void =>
      expect(() => model.forward(packed(sequences, starts))).toThrow(message);
    refused([ids], [], /ERR_LIBMOE_DATA.*4 tokens 49.*0 images/);
    refused([ids], [1], /image 0 owns tokens 1 to 4, but token 1/);
    refused([ids.slice(0, 4)], [2], /image 0 needs 4 rows from token 2 on, but its sequence ends at 4/);
    refused([ids], [2, 2], /image 1 starts at token 2/);
    const images = { ...someImages([2]), side: 4, pixels: new Float32Array(48) };
    expect(() => model.forward({ ...packSequences([ids]), images })).toThrow(/ERR_LIBMOE_SHAPE.*3, 8, 8/);
    expect(() => expandPlaceholders([1, 49, 2], 2, { imageTokenId: 49, tokensPerImage: 3 })).toThrow(
      /1 placeholders.*2 images/,
    );
    expect(
      expandPlaceholders([1, 49, 2, 49], 2, { imageTokenId: 49, tokensPerImage: 2, tiles: [1, 2] }),
    ).toEqual({
      ids: Int32Array.of(1, 49, 49, 2, 49, 49, 49, 49),
      starts: Int32Array.of(1, 4, 6),
    });
    // As LibMoE an image may end with its sequence.
    const cut = rowsOfImages(
      { ids: Int32Array.of(1, 49, 49), sequenceOffsets: Int32Array.of(0, 3) },
      { starts: Int32Array.of(1), count: 1, rows: Int32Array.of(2) },
      { imageTokenId: 49, tokensPerImage: 4 },
    );
    expect([...cut.at, ...cut.from]).toEqual([1, 2, 0, 1]);
  });
});
