import { applyChatTemplate, type ChatTemplate } from '../data/chat-template.ts';

/** A part of a prompt: text as it stands, and what parts it from the next where the prompt is plain text. */
export interface PromptTurn {
  role: 'system' | 'user' | 'assistant';
  text: string;
  delimiter: string;
}

/** How prompts become conversations. */
export interface ChatPrompts {
  template: ChatTemplate;
  /** Few-shot examples as turns of their own; default: all of it in one question. */
  multiturn?: boolean;
}

/** Two texts with a delimiter between them where neither brings white space and neither is empty. */
export function delimited(before: string, after: string, delimiter: string): string {
  return before === '' || after === '' || touches(before, after)
    ? before + after
    : before + delimiter + after;
}

/** Whether white space stands where two texts meet. */
function touches(before: string, after: string): boolean {
  return /\s$/u.test(before) || /^\s/u.test(after);
}

/** A question, with its answer for an example, or with what the answer is to begin with. */
export function questionTurns(
  question: string,
  {
    answer,
    genPrefix = '',
    targetDelimiter,
    fewshotDelimiter = '',
  }: { answer?: string; genPrefix?: string; targetDelimiter: string; fewshotDelimiter?: string },
): PromptTurn[] {
  const user = (delimiter: string): PromptTurn => ({ role: 'user', text: question, delimiter });
  if (answer !== undefined && answer !== '') {
    const parted = genPrefix === '' || (question !== '' && !touches(question, genPrefix));
    const text = delimited(genPrefix, answer, ' ');
    return [user(parted ? targetDelimiter : ''), { role: 'assistant', text, delimiter: fewshotDelimiter }];
  }
  if (genPrefix === '') return [user('')];
  const parted = question !== '' && !touches(question, genPrefix);
  return [user(parted ? targetDelimiter : ''), { role: 'assistant', text: genPrefix, delimiter: '' }];
}

/** The whole prompt as text: plain, or as the chat template writes it, up to where the model goes on. */
export function writePrompt(turns: readonly PromptTurn[], chat?: ChatPrompts): string {
  if (chat === undefined) return turns.map(({ text, delimiter }) => text + delimiter).join('');
  const messages = (chat.multiturn ? turns : collapsed(turns)).map(({ role, text }) => ({
    role,
    content: text,
  }));
  const begun = messages.at(-1);
  if (begun?.role !== 'assistant') return applyChatTemplate(messages, chat.template);
  // The answer's beginning stands behind what the template writes before an answer.
  return applyChatTemplate(messages.slice(0, -1), chat.template) + begun.content;
}

/** Examples and question as one question. */
function collapsed(turns: readonly PromptTurn[]): PromptTurn[] {
  const system = turns.filter(({ role }) => role === 'system');
  const others = turns.slice(system.length);
  const begun = others.at(-1)?.role === 'assistant' ? others.slice(-1) : [];
  const asked = others.slice(0, others.length - begun.length);
  const text = asked.map((turn, i) => turn.text + (i < asked.length - 1 ? turn.delimiter : '')).join('');
  return [...system, { role: 'user', text, delimiter: '' }, ...begun];
}
