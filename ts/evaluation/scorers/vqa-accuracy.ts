import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { strip } from '../python-text.ts';
import { exactSum } from '../statistics.ts';
import { column } from './columns.ts';
import { registerScorer } from './scorer.ts';
import { vqaNormalise, vqaPunctuation, vqaWords } from './vqa-normalise.ts';

const options = z.strictObject({
  /** `textvqa`: a list of texts, always normalised. `vqav2` (OK-VQA, VizWiz too): records with `answer`. */
  profile: z.enum(['textvqa', 'vqav2']).default('textvqa'),
  answers: z.string().default('answers'),
});

/** (1/n) Σᵢ min(1, matches among the other annotators / 3). */
function consensus(matches: readonly boolean[]): number {
  const all = matches.filter(Boolean).length;
  return exactSum(matches.map((own) => Math.min(1, (all - Number(own)) / 3))) / matches.length;
}

/** Answers of annotators repeat from document to document; the last some are kept normalised. */
class Remembered {
  private readonly known = new Map<string, string>();
  constructor(private readonly make: (text: string) => string) {}
  get(text: string): string {
    let made = this.known.get(text);
    if (made === undefined) {
      made = this.make(text);
      if (this.known.size >= 50_000) this.known.clear();
      this.known.set(text, made);
    }
    return made;
  }
}
const normalised = new Remembered(vqaNormalise);
const unmarked = new Remembered((text) => vqaWords(vqaPunctuation(text)));

/** The accuracy of one response against the answers of the annotators of TextVQA. */
export function textVqaAccuracy(response: string, answers: readonly string[]): number {
  const said = vqaNormalise(response);
  return consensus(answers.map((answer) => normalised.get(answer) === said));
}

/** The same for VQAv2: answers that are all alike stay as they are; an annotator's equals are those whose record is the same. */
export function vqaV2Accuracy(
  response: string,
  records: readonly Readonly<Record<string, unknown>>[],
): number {
  const raw = records.map((record) => strip(String(record.answer).replace(/[\n\t]/g, ' ')));
  let said = vqaNormalise(response);
  let answers = raw;
  if (new Set(raw).size > 1) {
    answers = raw.map((answer) => unmarked.get(answer));
    said = vqaWords(vqaPunctuation(said));
  }
  const sameRecord = answers.map((answer, i) => JSON.stringify({ ...records[i], answer }));
  return (
    exactSum(
      answers.map((_, i) =>
        Math.min(
          1,
          answers.filter((answer, j) => answer === said && sameRecord[j] !== sameRecord[i]).length / 3,
        ),
      ),
    ) / answers.length
  );
}

/** Agreement with ten annotators (Antol et al. 2015, arXiv 1505.00468). Metric `vqa_accuracy`. */
registerScorer('vqa_accuracy', {
  options,
  score: (response, { doc }, { profile, answers }) => {
    const given = column(doc, answers);
    if (!Array.isArray(given) || given.length === 0)
      return fail(
        'ERR_LIBMOE_DATA',
        `column "${answers}" must hold the list of the annotators' answers, got ${JSON.stringify(given)}`,
      );
    const isRecord = (item: unknown): item is Record<string, unknown> =>
      typeof item === 'object' && item !== null && 'answer' in item;
    let value: number;
    if (profile === 'vqav2') {
      if (!given.every(isRecord))
        return fail('ERR_LIBMOE_DATA', `column "${answers}" must hold records with an "answer"`);
      value = vqaV2Accuracy(response, given);
    } else value = textVqaAccuracy(response, given.map(String));
    return { values: { vqa_accuracy: value }, parsed: vqaNormalise(response) };
  },
});
