import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { applyChatTemplate, type ChatMessage, loadChatTemplate } from '../../ts/data/index.ts';

interface Case {
  template: string;
  messages: ChatMessage[];
  options: { add_generation_prompt: boolean; tools?: object[]; date_string?: string };
  text?: string;
  refused?: string;
}

// Made with transformers: test/golden/chat-template/make.py
const golden = JSON.parse(
  readFileSync(path.resolve(import.meta.dirname, '../golden/chat-template/cases.json'), 'utf8'),
) as { special: Record<string, string>; templates: Record<string, string>; cases: Case[] };

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-chat-'));
afterAll(() => rmSync(folder, { recursive: true }));
const write = (name: string, text: string): void => {
  mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
  writeFileSync(path.join(folder, name), text);
};

describe('chat templates', () => {
  for (const [name, template] of Object.entries(golden.templates))
    it(`${name}: as transformers writes it`, () => {
      const cases = golden.cases.filter((each) => each.template === name);
      expect(cases.length).toBeGreaterThan(5);
      for (const { messages, options, text, refused } of cases) {
        const { add_generation_prompt, tools, ...variables } = options;
        const written = () =>
          applyChatTemplate(
            messages,
            { template, specialTokens: golden.special },
            { addGenerationPrompt: add_generation_prompt, variables, ...(tools && { tools }) },
          );
        if (refused === undefined) expect(written()).toBe(text);
        else expect(written).toThrow(`ERR_LIBMOE_TOKENIZER: the chat template says: ${refused}`);
      }
    });

  it('are found where checkpoints keep them', () => {
    expect(() => loadChatTemplate(folder)).toThrow(/ERR_LIBMOE_TOKENIZER.*has no chat template: expected/);
    const tokens = { bos_token: { content: '<b>', special: true }, eos_token: '<e>', pad_token: null };
    write('tokenizer_config.json', JSON.stringify({ ...tokens, chat_template: '{{ bos_token }}one' }));
    expect(loadChatTemplate(folder)).toEqual({
      template: '{{ bos_token }}one',
      specialTokens: { bos_token: '<b>', eos_token: '<e>' },
    });
    const list = ['default', 'rag'].map((name) => ({ name, template: `the ${name}` }));
    write('tokenizer_config.json', JSON.stringify({ chat_template: list }));
    expect(loadChatTemplate(folder).template).toBe('the default');
    expect(loadChatTemplate(folder, 'rag').template).toBe('the rag');
    expect(() => loadChatTemplate(folder, 'tool_use')).toThrow(/no chat template named "tool_use"/);
    // With tools transformers takes the template of that name.
    const withTools = [...list, { name: 'tool_use', template: 'the one for {{ tools | length }} tools' }];
    write('tokenizer_config.json', JSON.stringify({ chat_template: withTools }));
    const both = loadChatTemplate(folder);
    expect(applyChatTemplate([], both)).toBe('the default');
    expect(applyChatTemplate([], both, { tools: [{}, {}] })).toBe('the one for 2 tools');
    expect(applyChatTemplate([], loadChatTemplate(folder, 'rag'), { tools: [{}] })).toBe('the rag');
    // A file of its own comes first, as in transformers.
    write('chat_template.jinja', 'a file');
    expect(loadChatTemplate(folder).template).toBe('a file');
    write('additional_chat_templates/rag.jinja', 'another file');
    expect(loadChatTemplate(folder, 'rag').template).toBe('another file');
    expect(applyChatTemplate([], loadChatTemplate(folder), { tools: [{}] })).toBe('a file');
    write('additional_chat_templates/tool_use.jinja', 'a file for tools');
    expect(applyChatTemplate([], loadChatTemplate(folder), { tools: [{}] })).toBe('a file for tools');
  });

  it('that are not Jinja say so', () => {
    const broken = { template: '{% for m in %}', specialTokens: {} };
    expect(() => applyChatTemplate([{ role: 'user', content: 'a' }], broken)).toThrow(/ERR_LIBMOE_TOKENIZER/);
  });
});
