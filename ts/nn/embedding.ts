import { embedding } from '../tensor/embedding.ts';
import type { Tensor } from '../tensor/index.ts';
import { normal, startWith } from './initialisers.ts';
import { firstValues, type LayerOptions, newParameter, requirePositive } from './linear.ts';
import { Module } from './module.ts';

/** A table of vectors, `weight [entries, width]`; starts N(0, 1) as PyTorch's Embedding does. */
export class Embedding extends Module {
  readonly entries: number;
  readonly width: number;
  weight: Tensor;

  constructor(entries: number, width: number, options: LayerOptions = {}) {
    super();
    requirePositive('Embedding', { entries, width });
    this.entries = entries;
    this.width = width;
    this.weight = newParameter([entries, width], options);
    startWith(this.weight, options.values ?? firstValues, 'weight', normal(1));
  }

  /**
   * @param ids i32 `[...]`, each in [0, entries)
   * @returns `[..., width]`
   */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}
