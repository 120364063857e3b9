import { fail } from '../native/index.ts';
import { limitedCount, loadDocuments } from './dataset.ts';
import { processRows } from './document-steps.ts';
import { fewShotsOf } from './few-shot.ts';
import { generationsOf } from './generation-settings.ts';
import type { EvalRequest } from './journal.ts';
import { lastWordTokens } from './last-word.ts';
import type { EvalModel, RequestImage } from './model.ts';
import { type PromptSetting, type Question, QuestionMaker, type TextPair } from './question.ts';
import { type RequestImages, withPlaceholders } from './request-images.ts';
import { encodePair, encodePrompt } from './requests.ts';
import { asksLastWord } from './scoring.ts';
import type { Task } from './task.ts';

/** A request with what happened while its texts became tokens. */
export interface EncodedRequest {
  request: EvalRequest;
  boundaryMerged: boolean;
  bosAdded: boolean;
  templateHasBos: boolean;
}

/** A task with its documents as questions and requests. */
export interface PreparedTask {
  task: Task;
  questions: Question[];
  /** Per question: one per pair, or as many as a text is asked for. */
  encoded: EncodedRequest[][];
  /** Rows of the data set. */
  original: number;
  sha256: string;
}

/** Which documents of a task are asked, and how. */
export interface PrepareOptions {
  limit?: number;
  /** Documents by task, in place of the first so many. */
  samples?: Readonly<Record<string, readonly number[]>>;
  dataFolder?: string;
  prompts: PromptSetting;
}

/** Reads the documents of a task and makes requests of them. Throws as evaluate. */
export async function prepareTask(
  task: Task,
  model: EvalModel,
  images: RequestImages,
  options: PrepareOptions,
): Promise<PreparedTask> {
  if (task.requires !== undefined)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `task ${task.task} asks about videos: decoding them needs ffmpeg, and frames are not implemented. Leave it out; "libmoe score" scores answers made elsewhere`,
    );
  checkModel(task, model);
  const loaded = await loadDocuments(task, options.dataFolder);
  const rows = processRows(loaded.rows, task.process_docs, task.task);
  const shots = await fewShotsOf(task, rows, options.dataFolder);
  const chosen = documentsOf(task, rows.length, options);
  const last = [...chosen].reduce((most, id) => Math.max(most, id), 0);
  const maker = new QuestionMaker(task, options.prompts);
  const questions: Question[] = [];
  const encoded: EncodedRequest[][] = [];
  for (let docId = 0; docId <= last; docId++) {
    const doc = rows[docId]!;
    // Drawn for those that are not asked too, so that a document always has the same examples.
    const examples = shots?.next(doc);
    if (!chosen.has(docId)) continue;
    const question = maker.make(doc, docId, examples);
    try {
      const seen = await images.of(task, question.images);
      encoded.push(requestsOf(question, seen, task, model));
    } catch (cause) {
      const { message, code } = cause as Error & { code?: 'ERR_LIBMOE_DATA' };
      fail(
        code ?? 'ERR_LIBMOE_DATA',
        `task ${task.task}, document ${docId}: ${message.replace(/^ERR_\w+: /, '')}`,
        cause,
      );
    }
    questions.push(question);
    if (docId % 256 === 255) await new Promise((resolve) => setImmediate(resolve));
  }
  return { task, questions, encoded, original: rows.length, sha256: loaded.sha256 };
}

function checkModel(task: Task, model: EvalModel): void {
  if (task.doc_to_visual !== undefined && model.imagePlaceholder === undefined)
    fail('ERR_LIBMOE_UNSUPPORTED', `task ${task.task} shows images, and ${model.name} sees none`);
  if (task.output_type === 'generate_until' && model.generateUntil === undefined)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `task ${task.task} asks for texts, and ${model.name} gives likelihoods only`,
    );
  if (task.gen_prefix !== undefined && model.encodeTurn)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `task ${task.task}: gen_prefix does not go with a model that is asked in turns of a conversation`,
    );
}

function documentsOf(task: Task, count: number, { limit, samples }: PrepareOptions): Set<number> {
  const given = samples?.[task.task];
  if (given !== undefined) {
    const wrong = given.find((id) => !Number.isInteger(id) || id < 0 || id >= count);
    if (given.length === 0 || wrong !== undefined)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `samples of ${task.task} must be documents from 0 to ${count - 1}, got ${wrong ?? 'none'}`,
      );
    return new Set(given);
  }
  return new Set(Array.from({ length: limitedCount(count, limit) }, (_, i) => i));
}

function requestsOf(
  question: Question,
  images: readonly RequestImage[],
  task: Task,
  model: EvalModel,
): EncodedRequest[] {
  const requests =
    task.output_type === 'generate_until'
      ? textRequests(question.pairs[0]!.context, images, task, model)
      : question.pairs.map((pair) => likelihoodRequest(pair, images, task, model));
  if (images.length > 0) for (const { request } of requests) request.images = images;
  return requests;
}

/** A prompt with a placeholder for each image. */
function shown(prompt: string, images: readonly RequestImage[], { imagePlaceholder }: EvalModel): string {
  return imagePlaceholder ? withPlaceholders(prompt, images.length, imagePlaceholder) : prompt;
}

/** A pair as the model is asked: as a turn of a conversation where it knows those. */
function likelihoodRequest(
  pair: TextPair,
  images: readonly RequestImage[],
  task: Task,
  model: EvalModel,
): EncodedRequest {
  const context = shown(pair.context, images, model);
  if (task.output_type === 'loglikelihood_rolling' || !model.encodeTurn)
    return rollingOrPair({ ...pair, context }, task, model);
  return {
    request: {
      kind: 'loglikelihood',
      // What stands before an answer is the template's to say.
      ...model.encodeTurn(context, pair.continuation.slice(task.target_delimiter.length)),
    },
    ...untouched,
  };
}

function rollingOrPair(pair: TextPair, task: Task, { tokenizer }: EvalModel): EncodedRequest {
  const encoded = encodePair(pair, task, tokenizer);
  if (!asksLastWord(task)) return encoded;
  const { request } = encoded;
  const last = Math.min(request.continuation.length, lastWordTokens(pair.continuation, tokenizer));
  return { ...encoded, request: { ...request, last } };
}

const untouched = { boundaryMerged: false, bosAdded: false, templateHasBos: false };

function textRequests(
  prompt: string,
  images: readonly RequestImage[],
  task: Task,
  model: EvalModel,
): EncodedRequest[] {
  const context = shown(prompt, images, model);
  return generationsOf(task).map((generation) =>
    model.encodeTurn
      ? {
          request: { kind: 'generate_until', context: model.encodeTurn(context, '').context, generation },
          ...untouched,
        }
      : { ...encodePrompt(context, task, model.tokenizer, generation), boundaryMerged: false },
  );
}
