import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { FamilyNeed } from './needs.ts';

/** A tensor of a checkpoint file, or the rows of it that belong to one parameter. */
export interface FileTensor {
  name: string;
  /** Of the whole tensor, as the file has it. */
  shape: readonly number[];
  /** The file has its last two axes exchanged (GPT-2 keeps its matrices as [inputs, outputs]). */
  transposed?: boolean;
  /**
   * The file has the axes in another order: the part, seen as `shape`, with its axes in the order `axes`, is the file's tensor. `mxfp4`: the order in
   * which files of 4-bit numbers (`<name>_blocks` and `<name>_scales`) have them; such a file is dequantised as it is read.
   */
  arranged?: { shape: readonly number[]; axes: readonly number[]; mxfp4?: readonly number[] };
  /** Only the rows `from` to `to` (exclusive) belong to the parameter; counted after transposing. Default: all. */
  rows?: readonly [from: number, to: number];
}

/**
 * How one family of checkpoints describes a model: one file of this folder per family, listed in `index.ts`.
 * Every parameter of ours is one or more file tensors, or rows of them, laid end to end.
 */
export interface Architecture {
  /** `architectures[0]` of config.json. */
  readonly name: string;
  readonly modelType: string;
  /** Our configuration of a config.json. @throws ERR_LIBMOE_CONFIG for a setting that our model does not have */
  read(json: JsonObject, source: string): LanguageModelOptions;
  /** What a model must be for the family to have it, each need with the words for a model that is not. */
  needs(config: LanguageModelConfig): readonly FamilyNeed[];
  /** The config.json of a model that meets every one of these needs. */
  write(config: LanguageModelConfig): JsonObject;
  /** Where a parameter of ours lies in the files. */
  fileTensors(name: string, shape: readonly number[], config: LanguageModelConfig): FileTensor[];
  /** Names in files that may be left unread (buffers that follow from the configuration, layers that are not run). */
  ignorable(name: string, config: LanguageModelConfig): boolean;
  /** Values of `quant_method` whose files can be read. */
  readonly quantisations?: readonly string[];
  /** What every name but the output projection's begins with, and files that hold the model without its head leave out. */
  readonly basePrefix?: string;
}
