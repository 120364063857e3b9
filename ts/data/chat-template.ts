import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { fail } from '../native/index.ts';
import { type JsonObject, readJsonObject } from '../storage/json.ts';

/** One turn of a conversation. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, or what else the template knows. */
  role: string;
  content: string;
  /** What else a template asks of a message, such as `tool_calls`. */
  [key: string]: unknown;
}

/** How a checkpoint writes conversations. */
export interface ChatTemplate {
  /** Jinja, as in Hugging Face's tokenizer files. */
  template: string;
  /** The one for conversations with tools, of a checkpoint that has another for them. */
  toolUse?: string;
  /** Texts of the special tokens, `bos_token` and the like, which templates name. */
  specialTokens: Record<string, string>;
}

/** What {@link applyChatTemplate} may be told. */
export interface ChatOptions {
  /** End with what begins the assistant's answer. Default true. */
  addGenerationPrompt?: boolean;
  /** Tools as JSON schemas, for templates that list them; with them the checkpoint's template `tool_use` is taken if it has one. */
  tools?: readonly object[];
  /** Other variables of the template. */
  variables?: Record<string, unknown>;
}

/**
 * The chat template of a checkpoint folder: `chat_template.jinja`, or `chat_template` of `tokenizer_config.json` (of several the one named
 * `default`, and `tool_use` for conversations with tools, or as `name` says).
 * @throws ERR_LIBMOE_TOKENIZER when there is none, or none of that name
 */
export function loadChatTemplate(folder: string, name = 'default'): ChatTemplate {
  const configFile = path.join(folder, 'tokenizer_config.json');
  const config = existsSync(configFile) ? readJsonObject(configFile, 'ERR_LIBMOE_TOKENIZER') : {};
  const specialTokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    const text = typeof value === 'string' ? value : (value as { content?: unknown } | null)?.content;
    if (key.endsWith('_token') && typeof text === 'string') specialTokens[key] = text;
  }
  const template = templateOf(folder, config, name);
  if (template === undefined)
    return fail(
      'ERR_LIBMOE_TOKENIZER',
      `${folder} has no chat template${name === 'default' ? '' : ` named "${name}"`}: expected chat_template.jinja, or chat_template in tokenizer_config.json`,
    );
  const toolUse = name === 'default' ? templateOf(folder, config, 'tool_use') : undefined;
  return { template, ...(toolUse !== undefined && { toolUse }), specialTokens };
}

/** Of a file of its own, else of the configuration. As in transformers, a checkpoint with a file of the default takes nothing else from there for tools. */
function templateOf(folder: string, config: JsonObject, name: string): string | undefined {
  const main = path.join(folder, 'chat_template.jinja');
  const file = name === 'default' ? main : path.join(folder, 'additional_chat_templates', `${name}.jinja`);
  if (existsSync(file)) return readFileSync(file, 'utf8');
  return name === 'tool_use' && existsSync(main) ? undefined : named(config.chat_template, name);
}

/** One template, or a list of named ones. */
function named(given: unknown, name: string): string | undefined {
  if (typeof given === 'string') return name === 'default' ? given : undefined;
  if (!Array.isArray(given)) return undefined;
  const found = (given as { name?: unknown; template?: unknown }[]).find((each) => each.name === name);
  return typeof found?.template === 'string' ? found.template : undefined;
}

/**
 * A conversation as the text that a model was trained on, which is what `apply_chat_template` of transformers gives. The template writes BOS and
 * other special tokens itself: encode the text without adding any.
 * @param messages in their order, the system's first if there is one
 * @throws ERR_LIBMOE_TOKENIZER for a template that is not Jinja or refuses the conversation (roles that do not alternate, no place for a system
 * message), in the template's words
 */
export function applyChatTemplate(
  messages: readonly ChatMessage[],
  { template, toolUse, specialTokens }: ChatTemplate,
  options: ChatOptions = {},
): string {
  const { addGenerationPrompt = true, tools, variables = {} } = options;
  try {
    return compiled(tools === undefined ? template : (toolUse ?? template)).render({
      ...specialTokens,
      ...variables,
      messages,
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (error) {
    return fail('ERR_LIBMOE_TOKENIZER', `the chat template says: ${(error as Error).message}`, error);
  }
}

const known = new Map<string, Template>();

function compiled(template: string): Template {
  const before = known.get(template);
  if (before) return before;
  const made = new Template(template);
  if (known.size > 16) known.clear();
  known.set(template, made);
  return made;
}
