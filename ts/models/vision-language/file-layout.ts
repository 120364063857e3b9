import { fail } from '../../native/index.ts';
import type { Architecture, FileTensor } from '../language/architectures/index.ts';
import { type FileLayout, layoutOf } from '../language/file-tensors.ts';
import { towerLayout } from '../vision/index.ts';
import type { VisionLanguageConfig } from './config.ts';

/** How the parts of a LLaVA model are called in files. */
export interface LlavaSpelling {
  /** What names of the tower begin with. */
  vision: string;
  /**
   * `nested`: the language model whole under `language_model.`, the projector under `multi_modal_projector.` (files of all versions of transformers);
   * `flat`: as the modules of later versions are called, `model.language_model.` and `model.multi_modal_projector.`, the output projection `lm_head.`.
   */
  form: 'nested' | 'flat';
}

/** The form of the names in files. */
export const formOf = (names: readonly string[]): LlavaSpelling['form'] =>
  names.some((name) => name.startsWith('model.language_model.')) ? 'flat' : 'nested';

/** What the base of a language model is called in a family's own files: `model.`, `transformer.`. */
function baseOf(architecture: Architecture, config: VisionLanguageConfig['language']): string {
  const [first] = architecture.fileTensors(
    'embedding.weight',
    [config.vocabularySize, config.dModel],
    config,
  );
  return `${first!.name.split('.')[0]}.`;
}

/** Where the parameters of a vision-language model lie in Hugging Face's LLaVA files. */
export function llavaLayout(
  config: VisionLanguageConfig,
  architecture: Architecture,
  { vision, form }: LlavaSpelling,
): FileLayout {
  const language = layoutOf(architecture, config.language);
  const tower = towerLayout(config.vision, vision);
  const flat = form === 'flat';
  const base = baseOf(architecture, config.language);
  const head = 'lm_head.';
  const outer = (name: string): string => {
    if (!flat) return `language_model.${name}`;
    return name.startsWith(base) ? `model.language_model.${name.slice(base.length)}` : name;
  };
  const inner = (name: string): string | undefined => {
    const prefix = flat ? 'model.language_model.' : 'language_model.';
    if (flat && name.startsWith(head)) return name;
    if (!name.startsWith(prefix)) return undefined;
    return (flat ? base : '') + name.slice(prefix.length);
  };
  const projector = `${flat ? 'model.' : ''}multi_modal_projector.`;
  return {
    fileTensors(name, shape): FileTensor[] {
      const [, part, rest = ''] = /^(vision|projector|language)\.(.+)$/.exec(name) ?? [];
      if (part === 'vision') return tower.fileTensors(rest, shape);
      if (part === 'language')
        return language.fileTensors(rest, shape).map((found) => ({ ...found, name: outer(found.name) }));
      const [, layer, field] = /^layers\.([01])\.(weight|bias)$/.exec(rest) ?? [];
      return layer === undefined
        ? fail('ERR_LIBMOE_CHECKPOINT', `LLaVA has no place for the parameter "${name}"`)
        : [{ name: `${projector}linear_${Number(layer) + 1}.${field}`, shape }];
    },
    ignorable(name) {
      const text = inner(name);
      if (text !== undefined) return language.ignorable(text);
      return name.startsWith(vision) && tower.ignorable(name);
    },
  };
}

/** Under our own names, which every model has. */
export const ownLayout: FileLayout = {
  fileTensors: (name, shape) => [{ name, shape }],
  ignorable: () => false,
};
