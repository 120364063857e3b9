import { type TrainedTokenizer, trainTokenizer } from '../../ts/data/index.ts';

const text = 'the cat sat on the mat and the dog ran to the cat\n'.repeat(4);

/** 290 ids: the bytes, and pieces of a handful of words. */
export function smallTokenizer(): Promise<TrainedTokenizer> {
  return trainTokenizer([text], { vocabularySize: 290, byteFallback: true });
}
