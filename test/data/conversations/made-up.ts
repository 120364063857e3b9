import type { ImageSource, LoadedImage } from '../../../ts/data/index.ts';

/** A record in LLaVA's format: questions and answers in turns. */
export function record(turns: readonly string[], image?: string | string[], id = 0): object {
  return {
    id,
    ...(image !== undefined && { image }),
    conversations: turns.map((value, i) => ({ from: i % 2 === 0 ? 'human' : 'gpt', value })),
  };
}

const words = 'cat dog mat the sat ran on to and'.split(' ');

/** So many records of growing and shrinking length, two of three with an image. */
export function someRecords(count: number): object[] {
  return Array.from({ length: count }, (_, i) => {
    const text = (length: number) =>
      Array.from({ length }, (_, k) => words[(i * 7 + k * 3) % words.length]).join(' ');
    const turns = [text(1 + (i % 5)), text(1 + ((i * 3) % 7))];
    if (i % 4 === 0) turns.push(text(2), text(1 + (i % 3)));
    return i % 3 === 2
      ? record(turns, undefined, i)
      : record([`<image>\n${turns[0]}`, ...turns.slice(1)], `${i}.png`, i);
  });
}

/** Images of 2 × 2 pixels whose every number is that of the file name; names that begin with `missing` are missing. Slow ones come late. */
export class MadeUpImages implements ImageSource {
  readonly side = 2;
  readonly black = [-1, -2, -3] as const;
  asked = 0;
  private readonly delay: (path: string) => number;
  private readonly tiles: number;

  constructor(options: { delay?: (path: string) => number; tiles?: number } = {}) {
    this.delay = options.delay ?? (() => 0);
    this.tiles = options.tiles ?? 1;
  }

  async load(paths: readonly string[]): Promise<LoadedImage[]> {
    this.asked += paths.length;
    return Promise.all(
      paths.map(async (path) => {
        const wait = this.delay(path);
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        const name = path.split('/').at(-1)!;
        if (name.startsWith('missing')) return { error: 'no such file' };
        const pixels = new Float32Array(this.tiles * 12);
        for (let tile = 0; tile < this.tiles; ++tile)
          pixels.fill(Number.parseInt(name, 10) + tile / 10, tile * 12, (tile + 1) * 12);
        return { pixels, tiles: this.tiles };
      }),
    );
  }
}
