import type { RotaryScaling } from '../../../nn/rotary-scaling.ts';
import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { Fields } from './fields.ts';

/** What a family assumes about rotary embedding where config.json is silent. */
export interface RotaryDefaults {
  base: number;
  maxPositions: number;
  /** Default: `original_max_position_embeddings` is as `max_position_embeddings`. */
  originalPositions?: number;
  /** Whether a part of each head may turn; default: whole heads only. */
  partial?: boolean;
  /** Other names that a family gave to kinds of scaling. */
  kinds?: Readonly<Record<string, string>>;
}

/** Rotary embedding in the spelling of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters). */
export function readRotary(
  fields: Fields,
  headDim: number,
  defaults: RotaryDefaults,
): NonNullable<LanguageModelOptions['rotary']> {
  const name = fields.object('rope_scaling') === undefined ? 'rope_parameters' : 'rope_scaling';
  const settings = fields.nested(name);
  fields.refuse(
    settings.has('full_attention') || settings.has('sliding_attention'),
    'a rotary embedding for each type of layer',
  );
  const given = settings.string('rope_type', settings.string('type', 'default'));
  const kind = defaults.kinds?.[given] ?? given;
  const base = settings.optionalNumber('rope_theta') ?? fields.number('rope_theta', defaults.base);
  const fraction =
    settings.optionalNumber('partial_rotary_factor') ?? fields.number('partial_rotary_factor', 1);
  fields.refuse(fraction !== 1 && !defaults.partial, `"partial_rotary_factor": ${fraction}`);
  const dims = Math.floor(headDim * fraction);
  // Of an odd number transformers turns one channel more, by the frequencies of the odd number.
  fields.refuse(
    dims % 2 !== 0,
    `"partial_rotary_factor": ${fraction}, which is ${dims} of ${headDim} channels,`,
  );
  const scaling = readScaling(fields, settings, kind, defaults);
  return { dims, base, ...(scaling && { scaling }) };
}

function readScaling(
  fields: Fields,
  settings: Fields,
  kind: string,
  defaults: RotaryDefaults,
): RotaryScaling | undefined {
  const reached = fields.number('max_position_embeddings', defaults.maxPositions);
  const originalPositions =
    fields.optionalNumber('original_max_position_embeddings') ??
    settings.number('original_max_position_embeddings', defaults.originalPositions ?? reached);
  const attentionFactor = settings.optionalNumber('attention_factor');
  switch (kind) {
    case 'default':
      return undefined;
    case 'linear':
      return { kind, factor: settings.number('factor') };
    case 'llama3':
      return {
        kind,
        factor: settings.number('factor'),
        lowFrequencyFactor: settings.number('low_freq_factor'),
        highFrequencyFactor: settings.number('high_freq_factor'),
        originalPositions,
      };
    case 'yarn': {
      const mscale = settings.optionalNumber('mscale');
      const mscaleAllDims = settings.optionalNumber('mscale_all_dim');
      return {
        kind,
        factor: settings.number('factor', reached / originalPositions),
        originalPositions,
        betaFast: settings.number('beta_fast', 32),
        betaSlow: settings.number('beta_slow', 1),
        truncate: settings.boolean('truncate', true),
        ...(attentionFactor !== undefined && { attentionFactor }),
        ...(mscale !== undefined && { mscale }),
        ...(mscaleAllDims !== undefined && { mscaleAllDims }),
      };
    }
    case 'longrope':
      return {
        kind,
        factor: settings.number('factor', reached / originalPositions),
        originalPositions,
        shortFactors: settings.numbers('short_factor'),
        longFactors: settings.numbers('long_factor'),
        ...(attentionFactor !== undefined && { attentionFactor }),
      };
    default:
      return fields.wrong(
        `rotary scaling "${kind}" is not supported (linear, llama3, yarn and longrope are); the weights would give wrong results without it`,
      );
  }
}

/** The fields of config.json for rotary embedding, in both spellings. */
export function writeRotary({ rotary, headDim, maxPositions }: LanguageModelConfig): JsonObject {
  const scaled = rotary.scaling === undefined ? undefined : scalingFields(rotary.scaling, maxPositions);
  const partial: JsonObject =
    rotary.dims === headDim ? {} : { partial_rotary_factor: fractionOf(rotary.dims, headDim) };
  return {
    rope_theta: rotary.base,
    ...partial,
    rope_parameters: { rope_type: 'default', ...scaled, rope_theta: rotary.base, ...partial },
    ...(scaled && { rope_scaling: scaled }),
  };
}

/** The part that `dims` are of `headDim`, so that the floor of their product is `dims` again. */
function fractionOf(dims: number, headDim: number): number {
  const nearest = dims / headDim;
  return Math.floor(headDim * nearest) === dims ? nearest : nearest * (1 + Number.EPSILON);
}

function scalingFields(scaling: RotaryScaling, maxPositions: number): JsonObject {
  switch (scaling.kind) {
    case 'linear':
      return { rope_type: 'linear', factor: scaling.factor };
    case 'llama3':
      return {
        rope_type: 'llama3',
        factor: scaling.factor,
        low_freq_factor: scaling.lowFrequencyFactor,
        high_freq_factor: scaling.highFrequencyFactor,
        original_max_position_embeddings: scaling.originalPositions,
      };
    case 'yarn':
      return {
        rope_type: 'yarn',
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalPositions,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        ...(scaling.truncate ? {} : { truncate: false }),
        ...(scaling.attentionFactor !== undefined && { attention_factor: scaling.attentionFactor }),
        ...(scaling.mscale !== undefined && { mscale: scaling.mscale }),
        ...(scaling.mscaleAllDims !== undefined && { mscale_all_dim: scaling.mscaleAllDims }),
      };
    case 'longrope':
      return {
        rope_type: 'longrope',
        short_factor: scaling.shortFactors,
        long_factor: scaling.longFactors,
        original_max_position_embeddings: scaling.originalPositions,
        ...(scaling.factor !== maxPositions / scaling.originalPositions && { factor: scaling.factor }),
        ...(scaling.attentionFactor !== undefined && { attention_factor: scaling.attentionFactor }),
      };
  }
}
