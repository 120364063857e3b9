import type { Tensor } from '../../tensor/index.ts';
import { mean } from '../../tensor/reduction.ts';
import { permute, reshape } from '../../tensor/shape.ts';

/**
 * Images cut into scale × scale tiles, row by row.
 * @param pixels `[images, channels, scale · side, scale · side]`
 * @returns `[images · scale², channels, side, side]`, the tiles of an image together
 */
export function tilesOf(pixels: Tensor, scale: number): Tensor {
  const [images = 0, channels = 0, height = 0, width = 0] = pixels.shape;
  const tall = height / scale;
  const wide = width / scale;
  const cut = reshape(pixels, [images, channels, scale, tall, scale, wide]);
  return reshape(permute(cut, [0, 2, 4, 1, 3, 5]), [images * scale * scale, channels, tall, wide]);
}

/**
 * The features of tiles put together to one picture and averaged down to the grid of one tile: each place is the mean of scale × scale neighbours.
 * @param features `[images · scale² · grid², width]`, as {@link tilesOf} orders tiles
 * @returns `[images · grid², width]`
 */
export function mergedTiles(features: Tensor, scale: number, grid: number): Tensor {
  const [rows = 0, width = 0] = features.shape;
  const images = rows / (scale * scale * grid * grid);
  const byTile = reshape(features, [images, scale, scale, grid, grid, width]);
  const picture = reshape(permute(byTile, [0, 1, 3, 2, 4, 5]), [images, grid, scale, grid, scale, width]);
  return reshape(mean(picture, [2, 4]), [images * grid * grid, width]);
}
