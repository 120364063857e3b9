import { type ImageReference, isImageRecipe } from '../data/images/recipe.ts';
import { fail } from '../native/index.ts';
import { type ChatPrompts, delimited, type PromptTurn, questionTurns, writePrompt } from './prompt.ts';
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
  /** One pair per choice; one for loglikelihood tasks; for rolling tasks one with an empty context; for generation one with an empty continuation. */
  pairs: TextPair[];
  /** Texts of the choices without the delimiter: what acc_norm divides by. For generation those of `doc_to_choice`, if any. */
  choices: string[];
  /** Indices of the right choices; empty when the task has none. */
  gold: number[];
  /** As samples files show it. */
  target: string | number | (string | number)[];
  group?: string;
  /** Images as the document names them: files, data: URLs, or what is to be made of such. */
  images: ImageReference[];
}

type Asked = Omit<Question, 'docId' | 'doc' | 'group' | 'images'>;

/** What stands around the documents' own texts. */
export interface PromptSetting {
  /** Put before everything, with the task's description. */
  system?: string;
  /** Prompts as conversations. */
  chat?: ChatPrompts;
}

/** Turns rows into questions after the fields of a task file. Columns win over templates, as in lm-eval. */
export class QuestionMaker {
  private readonly templates = new Map<string, Template>();
  /** The same for few-shot examples, whose fields may be other ones. */
  private readonly forExamples: QuestionMaker | undefined;

  constructor(
    private readonly task: Task,
    private readonly setting: PromptSetting = {},
  ) {
    if (task.num_fewshot === 0) return;
    const { sampler: _, samples: __, split: ___, ...own } = task.fewshot_config ?? {};
    this.forExamples = new QuestionMaker({ ...task, ...own, num_fewshot: 0 });
  }

  /**
   * @param docId position of the row in its data set
   * @param shots rows that stand before it with their answers
   * @throws ERR_LIBMOE_DATA naming task, document and field when a column is missing or a value does not fit
   */
  make(doc: Row, docId: number, shots: readonly Row[] = []): Question {
    try {
      const before = this.before(doc, shots);
      const question =
        this.task.output_type === 'multiple_choice'
          ? this.choose(doc, before)
          : this.task.output_type === 'generate_until'
            ? this.open(doc, before)
            : this.single(doc, before);
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

  /** System text, description and examples. */
  private before(doc: Row, shots: readonly Row[]): PromptTurn[] {
    const { task, setting } = this;
    const description = task.description.includes('{{')
      ? String(this.field(task.description, doc))
      : task.description;
    const system = delimited(setting.system ?? '', description, task.fewshot_delimiter);
    return [
      ...(system === '' ? [] : [{ role: 'system', text: system, delimiter: '' } as const]),
      ...shots.flatMap((shot) => this.forExamples?.example(shot) ?? []),
    ];
  }

  private example(doc: Row): PromptTurn[] {
    const { task } = this;
    const { question, answer } = this.answered(doc);
    return questionTurns(question, {
      answer,
      genPrefix: this.genPrefix(doc),
      targetDelimiter: task.target_delimiter,
      fewshotDelimiter: task.fewshot_delimiter,
    });
  }

  private answered(doc: Row): { question: string; answer: string } {
    const { task } = this;
    if (task.output_type !== 'multiple_choice') {
      const target = this.target(doc);
      const first = Array.isArray(target) ? (target[0] ?? '') : target;
      const choices = task.doc_to_choice === undefined ? [] : this.choices(doc);
      const at = choices.length > 0 ? asIndex(first) : undefined;
      const answer = at === undefined ? String(first) : (choices[at] ?? String(first));
      return { question: this.text('doc_to_text', doc), answer };
    }
    const { pairs, choices, gold } = this.choose(doc, []);
    const right = gold[0]!;
    const several = pairs.length > 1 && pairs[0]!.context !== pairs[1]!.context;
    if (several) return { question: choices[right]!, answer: this.text('doc_to_target', doc) };
    return { question: this.text('doc_to_text', doc), answer: choices[right]! };
  }

  private genPrefix(doc: Row): string {
    const { gen_prefix: prefix } = this.task;
    return prefix === undefined ? '' : String(this.field(prefix, doc));
  }

  /** The prompt of a question after what stands before it. */
  private prompt(doc: Row, before: readonly PromptTurn[], question: string, delimiter: string): string {
    const genPrefix = this.genPrefix(doc);
    const turns = [...before, ...questionTurns(question, { genPrefix, targetDelimiter: delimiter })];
    return writePrompt(turns, this.setting.chat);
  }

  /** What stands between a prompt and what is scored. Behind a template's own words nothing does. */
  private delimiter(doc: Row): string {
    const { target_delimiter: delimiter } = this.task;
    if (this.setting.chat === undefined) return delimiter;
    const genPrefix = this.genPrefix(doc);
    return genPrefix !== '' && !/\s$/u.test(genPrefix) ? delimiter : '';
  }

  private single(doc: Row, before: readonly PromptTurn[]): Asked {
    const { task } = this;
    const target = this.text('doc_to_target', doc);
    if (task.output_type === 'loglikelihood_rolling')
      return { pairs: [{ context: '', continuation: target }], choices: [], gold: [], target };
    const context = this.prompt(doc, before, this.text('doc_to_text', doc), task.target_delimiter);
    return {
      pairs: [{ context, continuation: this.delimiter(doc) + target }],
      choices: [target],
      gold: [],
      target,
    };
  }

  /** A question that is answered in writing. */
  private open(doc: Row, before: readonly PromptTurn[]): Asked {
    const { task } = this;
    const context = this.prompt(doc, before, this.text('doc_to_text', doc), task.target_delimiter);
    const choices = task.doc_to_choice === undefined ? [] : this.choices(doc);
    return { pairs: [{ context, continuation: '' }], choices, gold: [], target: this.target(doc) };
  }

  /** The right answer or answers of an open question; '' where the data set keeps them to itself. */
  private target(doc: Row): Question['target'] {
    const { doc_to_target: source } = this.task;
    const value = typeof source === 'number' ? source : this.field(source, doc);
    if (value === null || value === undefined) return '';
    if (typeof value === 'boolean') return value ? 'True' : 'False';
    const fits = (one: unknown): boolean => typeof one === 'string' || typeof one === 'number';
    if (fits(value) || (Array.isArray(value) && value.every(fits))) return value as Question['target'];
    return fail(
      'ERR_LIBMOE_DATA',
      `doc_to_target must give a text, a number or a list of them, got ${JSON.stringify(value)}`,
    );
  }

  private images(doc: Row): ImageReference[] {
    const source = this.task.doc_to_visual;
    if (source === undefined) return [];
    const value = this.field(source, doc);
    const files = Array.isArray(value) ? value : [value];
    if (!files.every((file) => (typeof file === 'string' && file !== '') || isImageRecipe(file)))
      return fail(
        'ERR_LIBMOE_DATA',
        `doc_to_visual must give an image file or a list of them, got ${JSON.stringify(value)}`,
      );
    return files as ImageReference[];
  }

  private text(key: 'doc_to_text' | 'doc_to_target', doc: Row): string {
    const source = this.task[key];
    const value = typeof source === 'number' ? source : this.field(source, doc);
    if (typeof value === 'string') return value;
    if (typeof value === 'number') return String(value);
    return fail('ERR_LIBMOE_DATA', `${key} must give text, got ${JSON.stringify(value)}`);
  }

  private choose(doc: Row, before: readonly PromptTurn[]): Asked {
    const { task } = this;
    const choices = this.choices(doc);
    const rawText =
      typeof task.doc_to_text === 'number' ? task.doc_to_text : this.field(task.doc_to_text, doc);
    const delimiter = this.delimiter(doc);
    const inputIndex = asIndex(rawText);
    if (inputIndex !== undefined && task.doc_to_text !== '') {
      // Several contexts, one continuation (lm-eval's WinoGrande): the choices are contexts, the text names the right one.
      const continuation = delimiter + this.text('doc_to_target', doc);
      return {
        pairs: [
          ...choices.map((context) => ({ context: this.prompt(doc, before, context, ''), continuation })),
          ...this.alone(choices, delimiter),
        ],
        choices,
        gold: this.gold(inputIndex, choices),
        target: inputIndex,
      };
    }
    if (typeof rawText !== 'string')
      return fail('ERR_LIBMOE_DATA', `doc_to_text must give text, got ${JSON.stringify(rawText)}`);
    const context = this.prompt(doc, before, rawText, task.target_delimiter);
    const target =
      typeof task.doc_to_target === 'number' ? task.doc_to_target : this.field(task.doc_to_target, doc);
    return {
      pairs: [
        ...choices.map((choice) => ({ context, continuation: delimiter + choice })),
        ...this.alone(choices, delimiter),
      ],
      choices,
      gold: this.gold(target, choices),
      target: target as Question['target'],
    };
  }

  /** What acc_mutual_info asks besides: every choice with nothing before it. */
  private alone(choices: readonly string[], delimiter: string): TextPair[] {
    if (!this.task.metric_list?.some(({ metric }) => metric === 'acc_mutual_info')) return [];
    return choices.map((choice) => ({ context: '', continuation: delimiter + choice }));
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
