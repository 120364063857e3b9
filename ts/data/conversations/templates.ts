import { fail } from '../../native/index.ts';
import { type Conversation, imageMark } from './conversation.ts';

/** A stretch of the text that a model reads. */
export interface Segment {
  /** With `<image>` where an image stands. */
  text: string;
  /** Whether the model is to predict it: an answer and what ends it. */
  learned: boolean;
}

/** How conversations are written for a model. */
export interface ConversationTemplate {
  readonly name: string;
  /** True when the text itself says where it begins (BOS); false when the tokenizer's own way is added. */
  readonly writesBos: boolean;
  /** The text of a conversation, or the reason why this template cannot write it. */
  render(conversation: Conversation): Segment[] | string;
  /** What must be known to find the answers as the original does; absent where that is not known. */
  readonly rounds?: RoundMarks;
}

/** How the original takes a prompt apart again. */
export interface RoundMarks {
  /** Rounds end with it. */
  terminator: string;
  /** Question and answer are parted at it. */
  header: string;
  /** Terminators of the first round and of the others: a system block and a question have their own. */
  parts: readonly [first: number, later: number];
  /** Tokens that are taken off the length of an instruction. */
  allowance: number;
  /** Tokens that are taken off both lengths in later rounds. */
  laterAllowance: number;
}

/** Names of the built-in templates. */
export const templateNames = ['phi35', 'phi3', 'chatml', 'vicuna', 'llama-2', 'mistral', 'plain'] as const;
/** Name of a built-in template. */
export type TemplateName = (typeof templateNames)[number];

const aliases: Record<string, TemplateName> = { smollm: 'chatml', v1: 'vicuna', llama_2: 'llama-2' };

/** Options of {@link conversationTemplate}. */
export interface TemplateOptions {
  /** The system text of conversations that bring none of their own; `''` for none. Default: the template's. */
  system?: string;
  /** The token that ends an answer where the format says EOS. Default `</s>`. */
  eos?: string;
}

interface Layout {
  /** System text of conversations without one. */
  system?: string;
  /** What stands before the first question, or the question that holds it. */
  open?(system: string): string;
  question(text: string, place: { first: boolean; system: string }): string;
  answer(text: string, eos: string): string;
  /** Before every question but the first. */
  between?: string;
  /** False: a conversation with a system turn cannot be written. */
  takesSystem: boolean;
  rounds?: Omit<RoundMarks, 'terminator'> & { terminator?: string };
}

const phi: Layout = {
  open: (system) => (system === '' ? '' : `<|system|>\n${system}<|end|>\n`),
  question: (text) => `<|user|>\n${text}<|end|>\n<|assistant|>\n`,
  answer: (text) => `${text}<|end|>\n`,
  takesSystem: true,
};
const phiRounds = { terminator: '<|end|>\n', header: '<|end|>\n<|assistant|>\n', allowance: 1 } as const;
const instruct: Layout = {
  question: (text, { first, system }) =>
    `[INST] ${first && system !== '' ? `<<SYS>>\n${system}\n<</SYS>>\n\n` : ''}${text} [/INST]`,
  answer: (text, eos) => ` ${text} ${eos}`,
  takesSystem: false,
  rounds: { header: '[/INST] ', parts: [1, 1], allowance: 2, laterAllowance: 0 },
};

const layouts: Record<TemplateName, Layout> = {
  phi35: {
    ...phi,
    system: 'You are a helpful assistant.',
    rounds: { ...phiRounds, parts: [3, 2], laterAllowance: 0 },
  },
  phi3: { ...phi, rounds: { ...phiRounds, parts: [2, 2], laterAllowance: 1 } },
  chatml: {
    open: (system) => (system === '' ? '' : `<|im_start|>system\n${system}<|im_end|>\n`),
    question: (text) => `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`,
    answer: (text) => `${text}<|im_end|>\n`,
    takesSystem: true,
  },
  vicuna: {
    // What the published Vicuna and LLaVA 1.5 weights were trained to read.
    system:
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
    open: (system) => (system === '' ? '' : `${system} `),
    question: (text) => `USER: ${text} ASSISTANT:`,
    answer: (text, eos) => ` ${text}${eos}`,
    takesSystem: true,
    rounds: { header: ' ASSISTANT: ', parts: [1, 1], allowance: 2, laterAllowance: 0 },
  },
  'llama-2': { ...instruct, takesSystem: true, between: '<s>' },
  mistral: instruct,
  plain: { question: (text) => text, answer: (text) => `${text}\n`, takesSystem: false },
};

/**
 * A built-in template by name (`smollm` is `chatml`, `v1` is `vicuna`).
 * @throws ERR_LIBMOE_ARGUMENT for another name, or a system text that the template has no place for
 */
export function conversationTemplate(name: string, options: TemplateOptions = {}): ConversationTemplate {
  const known = aliases[name] ?? templateNames.find((each) => each === name);
  if (known === undefined)
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `a template is one of ${templateNames.join(', ')} or a checkpoint's own (jinjaTemplate), got "${name}"`,
    );
  const layout = layouts[known];
  const { system = layout.system ?? '', eos = '</s>' } = options;
  if (system !== '' && !layout.takesSystem)
    return fail('ERR_LIBMOE_ARGUMENT', `the template ${known} has no place for a system text`);
  const { rounds } = layout;
  return {
    name: known,
    writesBos: false,
    render: (conversation) => {
      if (known === 'plain') return plainSegments(conversation);
      return layoutSegments(known, layout, conversation, { system, eos });
    },
    ...(rounds && { rounds: { terminator: eos, ...rounds } }),
  };
}

function layoutSegments(
  name: string,
  layout: Layout,
  { turns }: Conversation,
  { system, eos }: Required<TemplateOptions>,
): Segment[] | string {
  const own = turns[0]!.role === 'system' ? turns[0]!.text : undefined;
  if (own !== undefined && !layout.takesSystem) return `the template ${name} has no place for a system turn`;
  const instruction = own ?? system;
  const opening = layout.open?.(instruction) ?? '';
  const segments: Segment[] = [];
  let unlearned = opening;
  let first = true;
  for (const { role, text } of turns) {
    if (role === 'system') continue;
    if (role === 'user') {
      unlearned +=
        (first ? '' : (layout.between ?? '')) + layout.question(text, { first, system: instruction });
      first = false;
    } else {
      segments.push({ text: unlearned, learned: false }, { text: layout.answer(text, eos), learned: true });
      unlearned = '';
    }
  }
  return segments;
}

/** Images and a caption: what was asked is left out. */
function plainSegments({ turns, images }: Conversation): Segment[] | string {
  if (turns.length !== 2 || turns[0]!.role !== 'user' || images.length === 0)
    return `the template plain takes images and one caption, got ${turns.length} turns and ${images.length} images`;
  return [
    { text: imageMark.repeat(images.length), learned: false },
    { text: `${turns[1]!.text}\n`, learned: true },
  ];
}
