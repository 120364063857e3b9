import { fail } from '../../native/index.ts';
import { writeFileAtomically, writeFully } from '../../storage/atomic.ts';
import { imageMark } from '../conversations/conversation.ts';
import { mediaName } from './media.ts';
import type { Bundle } from './open.ts';

/** Options of {@link writeConversations}. */
export interface ConversationColumns {
  /** Default `train`. */
  split?: string;
  config?: string;
  /** Columns; default `question`, `answer`, `image`. */
  question?: string;
  answer?: string;
  image?: string;
  /**
   * Most questions of one conversation; default: all about an image. With many, a model answers the later ones from the earlier answers, without looking.
   */
  turns?: number;
}

/**
 * Questions and answers of a split as conversations for training, in LLaVA's format: one or more conversations per image (ids `train-0` …, or
 * `train-0-0` … with `turns`), questions in the order of the rows; images as they first appear. Image names are relative to the bundle's folder.
 * @returns how many conversations and questions
 * @throws ERR_LIBMOE_ARGUMENT for `turns` that are no positive number; ERR_LIBMOE_DATA for a row without question, answer or image
 */
export function writeConversations(
  bundle: Bundle,
  path: string,
  columns: ConversationColumns = {},
): { conversations: number; questions: number } {
  const { split = 'train', question = 'question', answer = 'answer', image = 'image' } = columns;
  const { turns: most = Number.POSITIVE_INFINITY } = columns;
  if (most !== Number.POSITIVE_INFINITY && !(Number.isInteger(most) && most > 0))
    fail('ERR_LIBMOE_ARGUMENT', `turns must be a positive whole number, got ${most}`);
  const rows = bundle.rows(split, columns.config);
  const turns = new Map<string, [question: string, answer: string][]>();
  try {
    for (let i = 0; i < rows.length; ++i) {
      const row = rows.stored(i);
      const where = `${rows.entry.file}, row ${i + 1}`;
      const picture = text(row, image, where);
      if (!mediaName.test(picture))
        fail(
          'ERR_LIBMOE_DATA',
          `${where}: "${image}" is no image of the bundle, got ${JSON.stringify(picture)}`,
        );
      const turn: [string, string] = [text(row, question, where), text(row, answer, where)];
      const known = turns.get(picture);
      if (known) known.push(turn);
      else turns.set(picture, [turn]);
    }
  } finally {
    rows.close();
  }
  let count = 0;
  writeFileAtomically(path, (descriptor) => {
    for (const [number, [picture, asked]] of [...turns].entries()) {
      for (let first = 0; first < asked.length; first += most) {
        const conversations = asked.slice(first, first + most).flatMap(([value, reply], k) => [
          { from: 'human', value: k === 0 ? `${imageMark}\n${value}` : value },
          { from: 'gpt', value: reply },
        ]);
        const id = `${split}-${number}${most === Number.POSITIVE_INFINITY ? '' : `-${first / most}`}`;
        const record = JSON.stringify({ id, image: picture, conversations });
        writeFully(descriptor, Buffer.from(`${count === 0 ? '[\n' : ',\n'}${record}`));
        count += 1;
      }
    }
    writeFully(descriptor, Buffer.from('\n]\n'));
  });
  return { conversations: count, questions: rows.length };
}

function text(row: Readonly<Record<string, unknown>>, column: string, where: string): string {
  const value = row[column];
  return typeof value === 'string'
    ? value
    : fail('ERR_LIBMOE_DATA', `${where}: expected a text in "${column}", got ${JSON.stringify(value)}`);
}
