import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { conversationTemplate, jinjaTemplate } from '../data/conversations/index.ts';
import { ImagePool } from '../data/images/index.ts';
import { loadChatTemplate, loadTokenizer, type Tokenizer } from '../data/index.ts';
import { type EvalModel, languageAdapter, visionLanguageAdapter } from '../evaluation/index.ts';
import { LanguageModel } from '../models/language/index.ts';
import type { VisionTower } from '../models/vision/index.ts';
import { loadAnyModel, type VisionLanguageModel } from '../models/vision-language/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { defaultProcessor, processorIn, type TrainedForm, trainedFormIn } from './image-processor.ts';

/** How {@link openEvaluatedModel} asks a checkpoint. */
export interface EvaluatedModelOptions {
  /** Shown in results. */
  name: string;
  /** A tokenizer file or folder; default: the checkpoint's. */
  tokenizer?: string;
  /** Questions or texts per forward pass, and its tokens. Scores depend on neither. */
  batchSize?: number;
  tokenBudget?: number;
  /** Of a model that sees images: a built-in template of conversations; default: that of its training, else the checkpoint's own chat template. */
  template?: string;
  /** Of such a model: how images become square; default: as in its training, else as its processor has it. */
  imageMode?: 'square' | 'pad';
}

/** A model that evaluation can ask; close it afterwards. */
export interface EvaluatedModel {
  model: EvalModel;
  /** Whether it is asked in conversations anyway. */
  sees: boolean;
  /** Frees the model and the threads that read images. */
  close(): Promise<void>;
}

/**
 * Loads a checkpoint for evaluation: a language model is asked as it is, one that sees images in the conversations it was trained on.
 * @throws as loading does, and ERR_LIBMOE_ARGUMENT when no template is known
 */
export async function openEvaluatedModel(
  checkpoint: string,
  { name, tokenizer: named, batchSize, tokenBudget, template, imageMode }: EvaluatedModelOptions,
): Promise<EvaluatedModel> {
  const place = named ?? checkpoint;
  const tokenizer = loadTokenizer(place);
  const sizes = { name, ...(batchSize && { batchSize }), ...(tokenBudget && { tokenBudget }) };
  const loaded = await loadAnyModel(checkpoint);
  loaded.eval();
  if (loaded instanceof LanguageModel) {
    if (template === undefined && imageMode === undefined)
      return {
        model: languageAdapter(loaded, { tokenizer, ...sizes }),
        sees: false,
        close: async () => loaded.dispose(),
      };
    loaded.dispose();
    return fail('ERR_LIBMOE_ARGUMENT', `${name} sees no images: leave --template and --image-mode out`);
  }
  let pool: ImagePool | undefined;
  try {
    const trained = trainedFormIn(checkpoint);
    const mode = imageMode ?? singleTile(trained, name);
    const processor = processorIn(checkpoint) ?? defaultProcessor(loaded.vision.config);
    pool = new ImagePool({ processor, ...(mode && { mode }) });
    checkSide(loaded, pool);
    const model = visionLanguageAdapter(loaded, {
      tokenizer,
      template: templateFor(template, trained, tokenizer, place),
      images: pool,
      preparation: [processor, mode ?? null],
      ...sizes,
    });
    const images = pool;
    return {
      model,
      sees: true,
      async close() {
        loaded.dispose();
        await images.close();
      },
    };
  } catch (error) {
    loaded.dispose();
    await pool?.close();
    throw error;
  }
}

function checkSide({ vision }: VisionLanguageModel<VisionTower>, pool: ImagePool): void {
  if (pool.side !== vision.imageSize)
    fail(
      'ERR_LIBMOE_CONFIG',
      `preprocessor_config.json makes images of ${pool.side} pixels, the tower takes ${vision.imageSize}: correct the one or the other`,
    );
}

/** Evaluation shows one tile of an image. */
function singleTile({ imageMode }: TrainedForm, name: string): 'square' | 'pad' | undefined {
  if (imageMode !== 'anyres') return imageMode;
  return fail(
    'ERR_LIBMOE_ARGUMENT',
    `${name} was trained on images in tiles (data.imageMode anyres), and evaluation shows one tile of an image: give --image-mode square or pad`,
  );
}

function templateFor(given: string | undefined, trained: TrainedForm, tokenizer: Tokenizer, place: string) {
  const name = given ?? trained.template;
  if (name !== undefined && name !== 'jinja') {
    const eos = tokenizer.eosId === undefined ? undefined : tokenizer.idToToken(tokenizer.eosId);
    // The system text of the training belongs to its template; another has its own.
    const system = name === trained.template ? trained.system : undefined;
    return conversationTemplate(name, {
      ...(system !== undefined && { system }),
      ...(eos !== undefined && { eos }),
    });
  }
  try {
    return jinjaTemplate(loadChatTemplate(folderOf(place)));
  } catch (cause) {
    if (codeOf(cause) !== 'ERR_LIBMOE_TOKENIZER') throw cause;
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `${place} does not say how it was trained to converse: give --template, one of phi35, phi3, chatml, vicuna, llama-2, mistral, plain`,
      cause,
    );
  }
}

/** The folder of a checkpoint or tokenizer file, where its chat template lies. */
export function folderOf(place: string): string {
  return existsSync(place) && statSync(place).isDirectory() ? place : path.dirname(place);
}
