import type { ImageTiles } from '../conversations/image-source.ts';

/** Images as they come out of processing, kept up to a number of bytes; those that were not asked for the longest go first. */
export class RecentImages {
  private readonly images = new Map<string, ImageTiles>();
  private bytes = 0;

  constructor(private readonly capacity: number) {}

  get(file: string): ImageTiles | undefined {
    const image = this.images.get(file);
    if (!image) return undefined;
    // A Map keeps the order of insertion: what was asked for last stands last.
    this.images.delete(file);
    this.images.set(file, image);
    return image;
  }

  put(file: string, image: ImageTiles): void {
    const size = image.pixels.byteLength;
    if (size > this.capacity || this.images.has(file)) return;
    this.images.set(file, image);
    this.bytes += size;
    for (const [oldest, { pixels }] of this.images) {
      if (this.bytes <= this.capacity) break;
      this.images.delete(oldest);
      this.bytes -= pixels.byteLength;
    }
  }

  clear(): void {
    this.images.clear();
    this.bytes = 0;
  }
}
