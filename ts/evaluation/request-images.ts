import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
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
  async of(task: Task, names: readonly string[]): Promise<RequestImage[]> {
    const images: RequestImage[] = [];
    for (const name of names) images.push(await this.one(task, name));
    return images;
  }

  private async one(task: Task, name: string): Promise<RequestImage> {
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

async function hashOf(file: string, task: Task, name: string): Promise<string> {
  try {
    return createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
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
