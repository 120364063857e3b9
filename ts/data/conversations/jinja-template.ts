import { applyChatTemplate, type ChatMessage, type ChatTemplate } from '../chat-template.ts';
import type { ConversationTemplate, Segment } from './templates.ts';

/**
 * The chat template of a checkpoint. A conversation is written whole, and again up to each answer and up to its end, which shows where in the
 * text the answer stands; it is learned with what the template puts behind it before the next question.
 */
export function jinjaTemplate(template: ChatTemplate, name = 'jinja'): ConversationTemplate {
  const write = (messages: ChatMessage[], addGenerationPrompt: boolean) =>
    applyChatTemplate(messages, template, { addGenerationPrompt });
  return {
    name,
    writesBos: true,
    render({ turns }) {
      const messages = turns.map(({ role, text }) => ({ role, content: text }));
      const whole = write(messages, false);
      const segments: Segment[] = [];
      let done = 0;
      for (const [i, { role, content }] of messages.entries()) {
        if (role !== 'assistant') continue;
        // Some templates have no generation prompt, others end what has none with EOS.
        const prompts = [true, false].map((asks) => write(messages.slice(0, i), asks));
        const begin = prompts.find((prompt) => prompt.length >= done && whole.startsWith(prompt))?.length;
        const last = i === messages.length - 1;
        const end = last ? whole.length : sharedBeginning(whole, write(messages.slice(0, i + 1), false));
        const learned = begin === undefined ? '' : whole.slice(begin, end);
        if (begin === undefined || !learned.includes(content.trim()))
          return `the chat template does not write turn ${i + 1} behind what it writes before it, so what is to be learned cannot be told`;
        segments.push({ text: whole.slice(done, begin), learned: false }, { text: learned, learned: true });
        done = end;
      }
      return segments;
    },
  };
}

/** How far two texts agree; not into the middle of a special token, whose first characters many share. */
function sharedBeginning(whole: string, other: string): number {
  let end = 0;
  while (end < other.length && whole[end] === other[end]) end += 1;
  const tokens = whole
    .slice(Math.max(0, end - 40), end + 40)
    .matchAll(/<[^<>\s]{1,40}>|\[\/?[A-Z_]{1,20}\]/g);
  for (const { 0: token, index } of tokens) {
    const start = Math.max(0, end - 40) + index;
    if (start < end && end < start + token.length) return start;
  }
  return end;
}
