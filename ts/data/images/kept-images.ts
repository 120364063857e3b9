import type { ImageTiles } from '../conversations/image-source.ts';

/**
 * Images as they come out of processing, kept up to a number of bytes: the first ones that come. Nothing makes room for a later one: of a data set that is
 * larger and goes through in epochs, a fixed part is then found every time, where the last ones that came would be found seldom or never.
 */
export class KeptImages {
  private readonly images = new Map<string, ImageTiles>();
  private bytes = 0;

  constructor(private readonly capacity: number) {}

  get(file: string): ImageTiles | undefined {
    return this.images.get(file);
  }

  put(file: string, image: ImageTiles): void {
    const size = image.pixels.byteLength;
    if (this.bytes + size > this.capacity || this.images.has(file)) return;
    this.images.set(file, image);
    this.bytes += size;
  }

  clear(): void {
    this.images.clear();
    this.bytes = 0;
  }
}
