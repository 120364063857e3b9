/** An image as the model reads it, or why there is none. */
export type LoadedImage = ImageTiles | { error: string };

/** Pixels of an image and of its tiles. */
export interface ImageTiles {
  /** Normalised, channel first, `[tiles, 3, side, side]`. */
  pixels: Float32Array;
  tiles: number;
}

/** Where images come from. An image pool is one. */
export interface ImageSource {
  /** Width and height of what it gives, in pixels. */
  readonly side: number;
  /** Black after normalisation, by channel. */
  readonly black: readonly [number, number, number];
  /**
   * The images of the paths, in their order. An image that is missing or cannot be read is a value, not an exception.
   */
  load(paths: readonly string[]): Promise<LoadedImage[]>;
}

/** A black image of one tile. */
export function blackImage({ side, black }: Pick<ImageSource, 'side' | 'black'>): ImageTiles {
  const plane = side * side;
  const pixels = new Float32Array(3 * plane);
  for (const [channel, value] of black.entries()) pixels.fill(value, channel * plane, (channel + 1) * plane);
  return { pixels, tiles: 1 };
}
