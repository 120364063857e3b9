import { fail } from '../native/index.ts';
import type { Row, Task } from './task.ts';
import { compileTemplate, type Template } from './template.ts';

/** One (context, continuation) pair of texts. */
export interface TextPair {
  context: string;
  continuation: string;
}

/** A document turned into what is asked of the model, still as text. */
export interface Question {
  docId: number;
  doc: Row;
  /** One pair per choice; one for loglikelihood tasks; for rolling tasks one with an empty context. */
  pairs: TextPair[];
  /** Texts of the choices without the delimiter: what acc_norm divides by. */
  choices: string[];
  /** Indices of the right choices; empty when the task has none. */
  gold: number[];
  /** As samples files show it. */
  target: string | number | (string | number)[];
  group?: string;
  /** Image files as the document names them. */
  images: string[];
}

type Asked = Omit<Question, 'docId' | 'doc' | 'group' | 'images'>;

/** Turns rows into questions after the fields of a task file. Columns win over templates, as in lm-eval. */
export class QuestionMaker {
  private readonly templates = new Map<string, Template>();

  constructor(private readonly task: Task) {}

  /**
   * @param docId position of the row in its data set
   * @throws ERR_LIBMOE_DATA naming task, document and field when a column is missing or a value does not fit
   */
  make(doc: Row, docId: number): Question {
    try {
      const question = this.task.output_type === 'multiple_choice' ? this.choose(doc) : this.single(doc);
      const by = this.task.group_by;
      return {
        docId,
        doc,
        ...question,
        images: this.images(doc),
        ...(by === undefined ? {} : { group: String(this.field(by, doc)) }),
      };
    } catch (cause) {
      return fail(
        'ERR_LIBMOE_DATA',
        `task ${this.task.task}, document ${docId}: ${(cause as Error).message.replace(/^ERR_\w+: /, '')}`,
        cause,
      );
    }
  }

  /** Value of a field: the column of that name, else the template rendered with the row. */
  private field(field: string, doc: Row): unknown {
    if (Object.hasOwn(doc, field)) return doc[field];
    let template = this.templates.get(field);
    if (template === undefined) {
      template = compileTemplate(field);
      this.templates.set(field, template);
    }
    return template(doc);
  }

  private single(doc: Row): Asked {
    const { task } = this;
    const target = this.text('doc_to_target', doc);
    if (task.output_type === 'loglikelihood_rolling')
      return { pairs: [{ context: '', continuation: target }], choices: [], gold: [], target };
    const context = task.description + this.text('doc_to_text', doc);
    return {
      pairs: [{ context, continuation: task.target_delimiter + target }],
      choices: [target],
      gold: [],
      target,
    };
  }

  private images(doc: Row): string[] {
    const source = this.task.doc_to_visual;
    if (source === undefined) return [];
    const value = this.field(source, doc);
    const files = Array.isArray(value) ? value : [value];
    if (!files.every((file) => typeof file === 'string' && file !== ''))
      return fail(
        'ERR_LIBMOE_DATA',
        `doc_to_visual must give an image file or a list of them, got ${JSON.stringify(value)}`,
      );
    return files as string[];
  }

  private text(key: 'doc_to_text' | 'doc_to_target', doc: Row): string {
    const source = this.task[key];
    const value = typeof source === 'number' ? source : this.field(source, doc);
    if (typeof value === 'string') return value;
    if (typeof value === 'number') return String(value);
    return fail('ERR_LIBMOE_DATA', `${key} must give text, got ${JSON.stringify(value)}`);
  }

  private choose(doc: Row): Asked {
    const { task } = this;
    const choices = this.choices(doc);
    const rawText =
      typeof task.doc_to_text === 'number' ? task.doc_to_text : this.field(task.doc_to_text, doc);
    const inputIndex = asIndex(rawText);
    if (inputIndex !== undefined && task.doc_to_text !== '') {
      // Several contexts, one continuation (lm-eval's WinoGrande): the choices are contexts, the text names the right one.
      const continuation = task.target_delimiter + this.text('doc_to_target', doc);
      return {
        pairs: choices.map((context) => ({ context: task.description + context, continuation })),
        choices,
        gold: this.gold(inputIndex, choices),
        target: inputIndex,
      };
    }
    if (typeof rawText !== 'string')
      return fail('ERR_LIBMOE_DATA', `doc_to_text must give text, got ${JSON.stringify(rawText)}`);
    const context = task.description + rawText;
    const target =
      typeof task.doc_to_target === 'number' ? task.doc_to_target : this.field(task.doc_to_target, doc);
    return {
      pairs: choices.map((choice) => ({ context, continuation: task.target_delimiter + choice })),
      choices,
      gold: this.gold(target, choices),
      target: target as Question['target'],
    };
  }

  private choices(doc: Row): string[] {
    const source = this.task.doc_to_choice ?? [];
    const value =
      typeof source === 'string'
        ? this.field(source, doc)
        : Array.isArray(source)
          ? source.map((choice) => compileTemplate(choice)(doc))
          : Object.values(source).map((choice) => compileTemplate(choice)(doc));
    if (!Array.isArray(value) || value.length < 2 || !value.every((choice) => typeof choice === 'string'))
      return fail(
        'ERR_LIBMOE_DATA',
        `doc_to_choice must give a list of at least two texts, got ${JSON.stringify(value)}`,
      );
    return value;
  }

  private gold(target: unknown, choices: readonly string[]): number[] {
    const golds = Array.isArray(target) ? target : [target];
    return golds.map((gold) => {
      const index = asIndex(gold) ?? (typeof gold === 'string' ? choices.indexOf(gold) : -1);
      if (index < 0 || index >= choices.length)
        fail(
          'ERR_LIBMOE_DATA',
          `doc_to_target must be one of the choices or its index below ${choices.length}, got ${JSON.stringify(gold)}`,
        );
      return index;
    });
  }
}

/** A whole number, or a text of digits only. */
function asIndex(value: unknown): number | undefined {
  if (typeof value === 'number' && Number.isInteger(value)) return value;
  return typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : undefined;
}
