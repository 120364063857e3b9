import { fail } from '../native/index.ts';
import type { TokenBatch } from './batch.ts';

/** Checks that every part of a batch fits the others and every id lies in the vocabulary. Throws ERR_LIBMOE_DATA. */
export function checkBatch(batch: TokenBatch, vocabularySize: number): void {
  const { ids, targets, sequenceOffsets: offsets, positions } = batch;
  const tokens = ids.length;
  if (tokens === 0) fail('ERR_LIBMOE_DATA', 'a batch needs at least one token, got none');
  if (targets.length !== tokens || (positions !== undefined && positions.length !== tokens)) {
    fail(
      'ERR_LIBMOE_DATA',
      `targets and positions must have ${tokens} entries like ids, got ${targets.length} and ${positions?.length}`,
    );
  }
  if (offsets.length < 2 || offsets[0] !== 0 || offsets[offsets.length - 1] !== tokens) {
    fail(
      'ERR_LIBMOE_DATA',
      `sequenceOffsets must run from 0 to ${tokens}, got [${offsets.join(', ').slice(0, 80)}]`,
    );
  }
  for (let s = 1; s < offsets.length; ++s) {
    if (offsets[s]! <= offsets[s - 1]!)
      fail('ERR_LIBMOE_DATA', `sequenceOffsets must rise, got ${offsets[s - 1]} then ${offsets[s]}`);
  }
  for (let t = 0; t < tokens; ++t) {
    if (ids[t]! < 0 || ids[t]! >= vocabularySize || targets[t]! < -1 || targets[t]! >= vocabularySize) {
      fail(
        'ERR_LIBMOE_DATA',
        `ids must lie in 0…${vocabularySize - 1} and targets in −1…${vocabularySize - 1}, got id ${ids[t]} and target ${targets[t]} at ${t}: ` +
          'the data was made with another tokenizer',
      );
    }
  }
}
