import { LanguageModel, type LanguageModelOptions } from '../../../ts/models/language/index.ts';
import {
  type BatchImages,
  Projector,
  type ProjectorOptions,
  VisionLanguageModel,
} from '../../../ts/models/vision-language/index.ts';
import { tinyConfig } from '../tiny.ts';
import { FakeTower } from './fake-tower.ts';

export const imageToken = 49;

/** A vision-language model that runs in milliseconds. */
export function tinyVlm(
  options: {
    tower?: ConstructorParameters<typeof FakeTower>[0];
    projector?: ProjectorOptions;
    language?: LanguageModelOptions;
    compat?: 'fixed' | 'libmoe';
  } = {},
): VisionLanguageModel<FakeTower> {
  const { projector, language = tinyConfig, compat = 'fixed' } = options;
  const vision = new FakeTower(options.tower);
  const place = { ...vision, featureWidth: vision.featureWidth, dModel: language.dModel };
  return new VisionLanguageModel(
    {
      vision,
      projector: new Projector(place, projector, { values: { seed: 5, name: 'projector' } }),
      language: new LanguageModel(language, { seed: 1 }),
    },
    { imageTokenId: imageToken, compat },
  );
}

/** Images of the fake tower, deterministic, beginning at these tokens. */
export function someImages(starts: readonly number[], salt = 0): BatchImages {
  const size = 3 * 8 * 8;
  const value = (i: number): number => Math.sin(i * 0.7 + Math.floor(i / size) * 1.3 + salt);
  return {
    pixels: Float32Array.from({ length: starts.length * size }, (_, i) => value(i)),
    count: starts.length,
    side: 8,
    starts: Int32Array.from(starts),
  };
}

/** Token ids of a text with so many rows of an image at each of the places. */
export function withImageAt(ids: readonly number[], places: readonly number[], rows = 4): number[] {
  const out = ids.map((id) => id % imageToken);
  for (const place of [...places].reverse()) out.splice(place, 0, ...Array<number>(rows).fill(imageToken));
  return out;
}
