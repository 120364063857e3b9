import { fail } from '../../native/index.ts';
import { writeFileAtomically, writeFully } from '../../storage/atomic.ts';
import { imageMark } from '../conversations/conversation.ts';
import { mediaName } from './media.ts';
import type { Bundle, BundleRow } from './open.ts';

/** Options of {@link writeConversations}. */
export interface BundleConversationOptions {
  /** Default `train`. */
  split?: string;
  config?: string;
  /** Columns; default `question`, `answer`, `image`. */
  question?: string;
  answer?: string;
  image?: string;
  /** Only rows whose columns have one of the values listed for them. */
  where?: Readonly<Record<string, readonly string[]>>;
  /**
   * Most questions of one conversation; default: all about an image. With many, a model answers the later ones from the earlier answers, without looking.
   */
  turns?: number;
  /**
   * Instead of questions one caption per image: the distinct answers of its rows, sorted by code point, with spaces between ("red triangle").
   */
  captions?: boolean;
}

interface Turn {
  question: string;
  answer: string;
}

/**
 * Questions and answers of a split as conversations for training, in LLaVA's format: one or more conversations per image (ids `train-0` …, or
 * `train-0-0` … with `turns`), questions in the order of the rows; images as they first appear. Image names are relative to the bundle's folder.
 * @returns how many conversations, and questions (rows) in them
 * @throws ERR_LIBMOE_ARGUMENT for `turns` that are no positive number or go with captions; ERR_LIBMOE_DATA for a row without question, answer or image, and
 * where no row is chosen
 */
export function writeConversations(
  bundle: Bundle,
  path: string,
  options: BundleConversationOptions = {},
): { conversations: number; questions: number } {
  const { turns: most, captions = false, split = 'train' } = options;
  if (most !== undefined && !(Number.isInteger(most) && most > 0))
    fail('ERR_LIBMOE_ARGUMENT', `turns must be a positive whole number, got ${most}`);
  if (most !== undefined && captions)
    fail('ERR_LIBMOE_ARGUMENT', 'captions are one turn per image: leave turns out');
  const byImage = turnsByImage(bundle, split, options);
  let [conversations, questions] = [0, 0];
  writeFileAtomically(path, (descriptor) => {
    for (const [number, [image, turns]] of [...byImage].entries()) {
      const step = most ?? turns.length;
      for (let first = 0; first < turns.length; first += step) {
        const id = `${split}-${number}${most === undefined ? '' : `-${first / step}`}`;
        const spoken = captions ? captionOf(turns) : questionsOf(turns.slice(first, first + step));
        const record = JSON.stringify({ id, image, conversations: spoken });
        writeFully(descriptor, Buffer.from(`${conversations === 0 ? '[\n' : ',\n'}${record}`));
        conversations += 1;
      }
      questions += turns.length;
    }
    writeFully(descriptor, Buffer.from('\n]\n'));
  });
  return { conversations, questions };
}

function turnsByImage(
  bundle: Bundle,
  split: string,
  options: BundleConversationOptions,
): Map<string, Turn[]> {
  const { question = 'question', answer = 'answer', image = 'image', where: wanted = {} } = options;
  const byImage = new Map<string, Turn[]>();
  const rows = bundle.rows(split, options.config);
  let number = 0;
  for (const row of rows.allStored()) {
    number += 1;
    const where = `${rows.entry.file}, row ${number}`;
    if (!Object.entries(wanted).every(([column, values]) => values.includes(columnText(row, column, where))))
      continue;
    const picture = textOf(row, image, where);
    if (!mediaName.test(picture))
      fail(
        'ERR_LIBMOE_DATA',
        `${where}: "${image}" is no image of the bundle, got ${JSON.stringify(picture)}`,
      );
    const turn = { question: textOf(row, question, where), answer: textOf(row, answer, where) };
    const known = byImage.get(picture);
    if (known) known.push(turn);
    else byImage.set(picture, [turn]);
  }
  if (byImage.size === 0)
    fail(
      'ERR_LIBMOE_DATA',
      `none of the ${rows.length} rows of ${rows.entry.file} has ${JSON.stringify(wanted)}`,
    );
  return byImage;
}

const questionsOf = (turns: readonly Turn[]) =>
  turns.flatMap(({ question, answer }, k) => [
    { from: 'human', value: k === 0 ? `${imageMark}\n${question}` : question },
    { from: 'gpt', value: answer },
  ]);

function captionOf(turns: readonly Turn[]) {
  // UTF-8 sorts as code points do.
  const answers = [...new Set(turns.map(({ answer }) => answer))].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
  return [
    { from: 'human', value: imageMark },
    { from: 'gpt', value: answers.join(' ') },
  ];
}

function columnText(row: BundleRow, column: string, where: string): string {
  const value = row[column];
  return value === undefined
    ? fail('ERR_LIBMOE_DATA', `${where} has no column "${column}"; it has ${Object.keys(row).join(', ')}`)
    : String(value);
}

function textOf(row: BundleRow, column: string, where: string): string {
  const value = row[column];
  return typeof value === 'string'
    ? value
    : fail('ERR_LIBMOE_DATA', `${where}: expected a text in "${column}", got ${JSON.stringify(value)}`);
}
