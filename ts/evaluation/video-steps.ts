import { z } from 'zod';
import { missing, textOf } from './benchmark-steps.ts';
import { registerDocumentStep } from './document-steps.ts';
import { MersenneTwister } from './mersenne.ts';
import { capitalize } from './python-text.ts';
import type { Row } from './task.ts';

// Steps of benchmarks about videos. Each adds columns and keeps those there are.

/**
 * VITATECS (Li et al. 2023, arXiv 2311.17404): `option_a` and `option_b` of caption and counterfactual, in an order that Python's random numbers
 * give, seeded by the characters of both, and `gold`, the caption's letter.
 */
registerDocumentStep('vitatecs', {
  options: z.strictObject({}),
  apply: (rows) =>
    rows.map((row) => {
      const [caption, other] = [textOf(row, 'caption'), textOf(row, 'counterfactual')];
      const sum = [...caption, ...other].reduce((total, character) => total + character.codePointAt(0)!, 0);
      const first = new MersenneTwister(sum % 100).random() > 0.5;
      const sentence = (text: string): string => capitalize(text.endsWith('.') ? text : `${text}.`);
      const options = first ? [caption, other] : [other, caption];
      return {
        ...row,
        option_a: sentence(options[0]!),
        option_b: sentence(options[1]!),
        gold: first ? 'A' : 'B',
      };
    }),
});

const numberOf = (row: Row, column: string): number => {
  const value = row[column];
  return typeof value === 'number' ? value : missing(row, column, 'a number');
};

const subtitleSchema = z.union([
  z.looseObject({ timestamp: z.tuple([z.number(), z.number().nullable()]), text: z.string() }),
  z.looseObject({ start: z.string(), end: z.string(), line: z.string() }),
]);

/** Seconds of `hh:mm:ss.fff`. */
function secondsOf(time: string): number {
  return time.split(':').reduce((seconds, part) => seconds * 60 + Number(part), 0);
}

/** What is said, and from when to when, in seconds of the video. */
interface Spoken {
  text: string;
  start: number;
  end: number;
}

function spokenIn(row: Row): Spoken[] {
  const parsed = z.array(subtitleSchema).safeParse(row.subtitles);
  if (!parsed.success)
    return missing(row, 'subtitles', 'a list of { start, end, line } or { timestamp, text }');
  const offset = numberOf(row, 'starting_timestamp_for_subtitles');
  return parsed.data.map((subtitle) => {
    const [start, end] =
      'timestamp' in subtitle
        ? (subtitle.timestamp as [number, number | null])
        : [secondsOf(String(subtitle.start)), secondsOf(String(subtitle.end))];
    const text = String('text' in subtitle ? subtitle.text : subtitle.line);
    return { text, start: start - offset, end: (end ?? numberOf(row, 'duration')) - offset };
  });
}

/**
 * LongVideoBench with frames and subtitles in turn (Wu et al. 2024, arXiv 2407.15754): `interleaved`, an `<image>` for each of `frames` moments and,
 * in the order of the middles, the lines that a frame falls into; a line shorter than a second counts as one.
 */
registerDocumentStep('longvideobench', {
  onlyAsked: true,
  options: z.strictObject({ frames: z.int().positive().default(16) }),
  apply: (rows, { frames }) =>
    rows.map((row) => {
      const duration = numberOf(row, 'duration');
      const times =
        duration > frames
          ? Array.from({ length: frames }, (_, i) => (duration / frames) * i)
          : Array.from({ length: Math.trunc(duration) }, (_, i) => i);
      const lines: string[] = [];
      let shown = 0;
      for (const { text, start, end } of spokenIn(row)) {
        const middle = (start + end) / 2;
        for (; shown < times.length && times[shown]! <= middle; shown++) lines.push('<image>');
        const [from, to] = end - start < 1 ? [middle - 0.5, middle + 0.5] : [start, end];
        if (times.some((time) => from < time && time < to)) lines.push(text);
      }
      for (; shown < times.length; shown++) lines.push('<image>');
      return { ...row, interleaved: lines.join('\n') };
    }),
});
