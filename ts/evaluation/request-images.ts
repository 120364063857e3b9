import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { base64Image } from '../data/bundles/base64-image.ts';
import { dataUrlBytes, type ImageRecipe, type ImageReference, recipeVersion } from '../data/images/recipe.ts';
import { fail } from '../native/index.ts';
import { reasonOf } from '../storage/json.ts';
import type { RequestImage } from './model.ts';
import type { Task } from './task.ts';

/** Finds the images that documents name, and what is in them. One file is read once, however many documents show it. */
export class RequestImages {
  private readonly known = new Map<string, RequestImage>();

  /** @param dataFolder looked into before the task's own folder */
  constructor(private readonly dataFolder?: string) {}

  /** @throws ERR_LIBMOE_DATA for a file that is not there, or is none */
  async of(task: Task, references: readonly ImageReference[]): Promise<RequestImage[]> {
    const images: RequestImage[] = [];
    for (const reference of references)
      images.push(
        typeof reference === 'string' ? await this.one(task, reference) : await this.made(task, reference),
      );
    return images;
  }

  /** An image that is made of others when it is loaded: what it is made of and how stand for it. */
  private async made(task: Task, recipe: ImageRecipe): Promise<RequestImage> {
    const parts = await this.of(task, recipe.files);
    const { files: _, ...how } = recipe;
    const sha256 = digest(JSON.stringify(['recipe', recipeVersion, how, parts.map((part) => part.sha256)]));
    const { file } = parts[0]!;
    return {
      file,
      recipe: { ...recipe, files: parts.map((part) => part.file) } as ImageRecipe,
      sha256,
    };
  }

  private async one(task: Task, name: string): Promise<RequestImage> {
    const bytes = dataUrlBytes(name);
    if (bytes !== undefined) return { file: name, sha256: digest(bytes) };
    if (base64Image(name) !== undefined)
      fail(
        'ERR_LIBMOE_DATA',
        `doc_to_visual gives an image as base64 text: import the data set with --base64-images COLUMN; for dataset_path: json say base64_images: [COLUMN] in dataset_kwargs`,
      );
    const places = isAbsolute(name)
      ? [name]
      : [this.dataFolder, task.folder ?? '.']
          .filter((folder) => folder !== undefined)
          .map((folder) => resolve(folder, join(task.image_folder ?? '', name)));
    for (const file of places) {
      const known = this.known.get(file);
      if (known) return known;
      if (!existsSync(file)) continue;
      const image = { file, sha256: await hashOf(file, task, name) };
      this.known.set(file, image);
      return image;
    }
    return fail('ERR_LIBMOE_DATA', `there is no image ${name}: looked for ${places.join(', ')}`);
  }
}

const digest = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

async function hashOf(file: string, task: Task, name: string): Promise<string> {
  try {
    return digest(await readFile(file));
  } catch (cause) {
    const why = statSync(file).isDirectory() ? 'it is a folder' : reasonOf(cause);
    return fail(
      'ERR_LIBMOE_DATA',
      `task ${task.task}: the image ${JSON.stringify(name)} is ${file}, which cannot be read (${why}): doc_to_visual must name files`,
      cause,
    );
  }
}

/** The files (or data: URLs) of images by their names, or undefined when one of them is no file that is there. */
export function imagesAtHand(names: readonly unknown[], folder?: string): string[] | undefined {
  const files: string[] = [];
  for (const name of names) {
    if (typeof name !== 'string') return undefined;
    const file = folder === undefined || name.startsWith('data:') ? name : resolve(folder, name);
    if (!file.startsWith('data:') && !(isAbsolute(file) && existsSync(file))) return undefined;
    files.push(file);
  }
  return files;
}

/**
 * A prompt in which every image has its placeholder: where it names none, they go in front, a line each.
 * @throws ERR_LIBMOE_DATA when it names another number of images than there are
 */
export function withPlaceholders(prompt: string, images: number, placeholder: string): string {
  const named = prompt.split(placeholder).length - 1;
  if (named === images) return prompt;
  if (named === 0) return `${placeholder}\n`.repeat(images) + prompt;
  return fail(
    'ERR_LIBMOE_DATA',
    `the prompt has ${named} ${placeholder}, the document ${images} image${images === 1 ? '' : 's'}`,
  );
}
