import { z } from 'zod';
import { fail } from '../native/index.ts';

const factor = z.number().positive();
const positions = z.number().int().positive();

/** How rotary frequencies are changed so that a model sees further than the `originalPositions` it was first trained on. */
export const rotaryScalingSchema = z.discriminatedUnion('kind', [
  /** Position interpolation (Chen et al. 2023, arXiv 2306.15595): all frequencies divided by `factor`. */
  z.strictObject({ kind: z.literal('linear'), factor }),
  /** Llama 3.1 (arXiv 2407.21783): long wavelengths are divided by `factor`, short ones stay, those between are interpolated. */
  z.strictObject({
    kind: z.literal('llama3'),
    factor,
    lowFrequencyFactor: factor.default(1),
    highFrequencyFactor: factor.default(4),
    originalPositions: positions,
  }),
  /** YaRN (Peng et al. 2023, arXiv 2309.00071): a ramp over the pairs, and angles' cosines and sines times an attention factor. */
  z.strictObject({
    kind: z.literal('yarn'),
    factor,
    originalPositions: positions,
    betaFast: factor.default(32),
    betaSlow: factor.default(1),
    /** Default: from `factor`, and from `mscale` and `mscaleAllDims` where both are given. */
    attentionFactor: factor.optional(),
    mscale: z.number().nonnegative().optional(),
    mscaleAllDims: z.number().nonnegative().optional(),
    /** Round the ends of the ramp to whole pairs. */
    truncate: z.boolean().default(true),
  }),
  /**
   * LongRoPE (Ding et al. 2024, arXiv 2402.13753): a divisor per pair, one list for sequences up to `originalPositions` tokens and one for longer
   * ones; `factor` (new length / original length) sets the default of the attention factor.
   */
  z.strictObject({
    kind: z.literal('longrope'),
    factor,
    originalPositions: positions,
    shortFactors: z.array(factor).min(1),
    longFactors: z.array(factor).min(1),
    attentionFactor: factor.optional(),
  }),
]);
/** One of the kinds of {@link rotaryScalingSchema}, every default written out. */
export type RotaryScaling = z.output<typeof rotaryScalingSchema>;

type Yarn = Extract<RotaryScaling, { kind: 'yarn' }>;

/** What the angles of a model follow from. */
export interface RotaryFrequencies {
  /** Angle per position of each pair, `[dims / 2]`. */
  frequencies: number[];
  /** The same for sequences longer than `originalPositions`, where they differ. */
  longFrequencies?: number[];
  /** Factor on cosines and sines. */
  attentionFactor: number;
}

/**
 * The frequencies of a rotary embedding whose pair j turns by base^(−2j/dims) per position before scaling.
 * @throws ERR_LIBMOE_ARGUMENT when lists of factors do not have one entry per pair, or llama3's factors are not ascending
 */
export function rotaryFrequencies(dims: number, base: number, scaling?: RotaryScaling): RotaryFrequencies {
  const plain = Array.from({ length: dims / 2 }, (_, pair) => base ** ((-2 * pair) / dims));
  switch (scaling?.kind) {
    case undefined:
      return { frequencies: plain, attentionFactor: 1 };
    case 'linear':
      return { frequencies: plain.map((frequency) => frequency / scaling.factor), attentionFactor: 1 };
    case 'llama3': {
      const { lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions } = scaling;
      if (!(low <= high))
        fail('ERR_LIBMOE_ARGUMENT', `llama3: lowFrequencyFactor ${low} must not be more than ${high}`);
      const scaled = plain.map((frequency) => {
        const turns = (originalPositions * frequency) / (2 * Math.PI);
        // Llama 4 Scout has one factor twice: a step instead of a ramp.
        const kept = turns >= high ? 1 : turns <= low ? 0 : (turns - low) / (high - low);
        return frequency * (kept + (1 - kept) / scaling.factor);
      });
      return { frequencies: scaled, attentionFactor: 1 };
    }
    case 'yarn':
      return { frequencies: yarnFrequencies(plain, base, scaling), attentionFactor: yarnAttention(scaling) };
    case 'longrope': {
      const { shortFactors, longFactors, originalPositions } = scaling;
      for (const [name, list] of Object.entries({ shortFactors, longFactors })) {
        if (list.length !== plain.length) {
          fail(
            'ERR_LIBMOE_ARGUMENT',
            `longrope: ${name} must have one factor for each of ${plain.length} pairs, got ${list.length}`,
          );
        }
      }
      const usual =
        scaling.factor > 1 ? Math.sqrt(1 + Math.log(scaling.factor) / Math.log(originalPositions)) : 1;
      return {
        frequencies: plain.map((frequency, pair) => frequency / shortFactors[pair]!),
        longFrequencies: plain.map((frequency, pair) => frequency / longFactors[pair]!),
        attentionFactor: scaling.attentionFactor ?? usual,
      };
    }
  }
}

/** Pairs that turn more than `betaFast` times within the original length stay, those below `betaSlow` are divided by `factor`. */
function yarnFrequencies(plain: readonly number[], base: number, scaling: Yarn): number[] {
  const dims = 2 * plain.length;
  const pairThatTurns = (times: number): number =>
    (dims * Math.log(scaling.originalPositions / (times * 2 * Math.PI))) / (2 * Math.log(base));
  const rounded = (value: number, round: (x: number) => number): number =>
    scaling.truncate ? round(value) : value;
  const first = Math.max(0, rounded(pairThatTurns(scaling.betaFast), Math.floor));
  const end = Math.min(dims - 1, rounded(pairThatTurns(scaling.betaSlow), Math.ceil));
  const last = first === end ? end + 0.001 : end; // no division by zero
  return plain.map((frequency, pair) => {
    const divided = Math.min(1, Math.max(0, (pair - first) / (last - first)));
    return frequency * (1 - divided + divided / scaling.factor);
  });
}

/** What YaRN multiplies angles' cosines and sines by to sharpen attention over `factor` times the length. */
const growth = (factor: number, weight: number): number =>
  factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;

function yarnAttention({ factor, attentionFactor, mscale, mscaleAllDims }: Yarn): number {
  if (attentionFactor !== undefined) return attentionFactor;
  return mscale && mscaleAllDims ? growth(factor, mscale) / growth(factor, mscaleAllDims) : growth(factor, 1);
}

/**
 * Factor on the scores of latent attention. Of its channels only some turn, so that a factor on cosines and sines does not reach the others: DeepSeek
 * takes `mscaleAllDims` out of the angles' factor and multiplies whole scores by its square.
 */
export function latentScoreFactor(scaling: RotaryScaling | undefined): number {
  return scaling?.kind === 'yarn' && scaling.mscaleAllDims
    ? growth(scaling.factor, scaling.mscaleAllDims) ** 2
    : 1;
}
