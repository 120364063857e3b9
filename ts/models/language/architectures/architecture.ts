import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';

/** One tensor of a checkpoint file. */
export interface FileTensor {
  name: string;
  shape: readonly number[];
}

/**
 * How one family of checkpoints describes a model: one file of this folder per family, listed in `index.ts`.
 * Every parameter of ours is one or more file tensors laid end to end.
 */
export interface Architecture {
  /** `architectures[0]` of config.json. */
  readonly name: string;
  readonly modelType: string;
  /** Our configuration of a config.json. @throws ERR_LIBMOE_CONFIG for a setting that our model does not have */
  read(json: JsonObject, source: string): LanguageModelOptions;
  /** The config.json of a model, or undefined when the family has no such model. */
  write(config: LanguageModelConfig): JsonObject | undefined;
  /** Where a parameter of ours lies in the files. */
  fileTensors(name: string, shape: readonly number[], config: LanguageModelConfig): FileTensor[];
  /** Names in files that may be left unread (buffers that follow from the configuration). */
  ignorable(name: string): boolean;
}
