import { MersenneTwister } from '../mersenne.ts';

/** One of the letters, the next draw of Python's `random` after `seed(seed)`. */
export type LegacyGuess = (letters: readonly string[], seed: number) => string;

/**
 * The guesses of a task whose original takes a random letter where it can read none out of an answer. Draws follow the order of the documents; every
 * task begins with a fresh seed, where the originals' stream runs on through all tasks of a process.
 */
export function legacyGuess(): LegacyGuess {
  const streams = new Map<number, MersenneTwister>();
  return (letters, seed) => {
    const stream = streams.get(seed) ?? new MersenneTwister(seed);
    streams.set(seed, stream);
    return stream.choice(letters);
  };
}
