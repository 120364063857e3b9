import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { imageOptions } from './images.ts';
import { interruptible } from './interrupt.ts';
import { collect, deviceOption, number, seed, takeDevice, whole } from './options.ts';
import { printJson, table } from './output.ts';

interface Options {
  device: string;
  model: string;
  prompt: string;
  tokenizer?: string;
  chat?: boolean;
  system?: string;
  maxTokens: string;
  temperature: string;
  topK?: string;
  topP?: string;
  seed: string;
  routing?: boolean;
  json?: boolean;
  image?: string[];
  imageMode?: string;
}

export function generateCommand(): Command {
  const [image, imageMode] = imageOptions;
  return new Command('generate')
    .description('continue a text or answer in a conversation, token by token as it is made')
    .requiredOption('--model <checkpoint>', 'a checkpoint folder, a run folder, or a llama2c .bin')
    .requiredOption('--prompt <text>', 'the beginning; with --chat what the user says')
    .option('--chat', "write the prompt as a conversation, by the checkpoint's chat template")
    .option('--system <text>', 'how the assistant is to be; implies --chat')
    .option('--tokenizer <file>', 'when the checkpoint has none of its own')
    .option('--max-tokens <n>', 'at most so many new tokens', '100')
    .option('--temperature <t>', '0: always the likeliest token', '0.8')
    .option('--top-k <k>', 'only the k likeliest tokens')
    .option('--top-p <p>', 'only the likeliest tokens that together have this probability')
    .option('--seed <n>', 'of the sampling', '0')
    .option(...image!, collect)
    .option(...imageMode!)
    .option('--routing', 'which experts the model used for each new token')
    .option(...deviceOption)
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      "\nExamples: npx libmoe generate --model runs/demo/moe --prompt 'My fellow citizens' --temperature 0.5 --routing\n          npx libmoe generate --model llava --chat --image cat.jpg --prompt 'What is this?'\nMore: docs/models.md",
    )
    .action(async (o: Options) => {
      const sampling = {
        maxTokens: whole('--max-tokens', o.maxTokens),
        temperature: number('--temperature', o.temperature),
        seed: seed('--seed', o.seed),
        routing: o.routing ?? false,
        ...(o.topK && { topK: whole('--top-k', o.topK) }),
        ...(o.topP && { topP: number('--top-p', o.topP) }),
      };
      const { resolveCheckpoint } = await import('../experiment/index.ts');
      const { loadTokenizer } = await import('../data/index.ts');
      const { endTokens, generate, LanguageModel, moeLayersOf } = await import('../models/language/index.ts');
      const { generateWithImages, loadAnyModel } = await import('../models/vision-language/index.ts');
      const { encodeWithImages, readImages, withMarks } = await import('./images.ts');
      const checkpoint = resolveCheckpoint(o.model);
      const tokenizer = loadTokenizer(o.tokenizer ?? checkpoint);
      const chat = o.chat === true || o.system !== undefined;
      const images = o.image ?? [];
      const asked = { ...o, prompt: images.length > 0 ? withMarks(o.prompt, images.length) : o.prompt };
      // A chat template writes the token that begins a text by itself.
      const words = chat ? await conversation(asked, checkpoint) : asked.prompt;
      await takeDevice(o.device);
      const model = await loadAnyModel(checkpoint);
      const language = model instanceof LanguageModel ? model : model.language;
      model.eval();
      let pixels: Awaited<ReturnType<typeof readImages>>['pixels'] | undefined;
      const prepared = async (): Promise<{ ids: Int32Array; starts: Int32Array }> => {
        if (images.length === 0)
          return { ids: tokenizer.encode(words, { addSpecialTokens: !chat }), starts: new Int32Array(0) };
        if (model instanceof LanguageModel)
          return fail('ERR_LIBMOE_ARGUMENT', `--image: ${o.model} is a language model and sees no images`);
        const shown = await readImages(model, images, o.imageMode);
        pixels = shown.pixels;
        return encodeWithImages(model, tokenizer, words, { tiles: shown.tiles, addBos: !chat });
      };
      const done = (): void => {
        pixels?.dispose();
        model.dispose();
      };
      const { ids: prompt, starts } = await prepared().catch((error: unknown) => {
        done();
        throw error;
      });
      if (prompt.length === 0) {
        done();
        fail(
          'ERR_LIBMOE_ARGUMENT',
          `--prompt is empty, and ${tokenizer.name} has no token that begins a text: give a beginning`,
        );
      }
      // What stands for the rows of images is no text.
      const said = model instanceof LanguageModel ? prompt : prompt.filter((id) => id !== model.imageTokenId);
      const tokens: Generated[] = [];
      // An answer stands alone; a continuation comes with what it continues.
      const shownFrom = chat ? said.length : 0;
      const text = (): string =>
        tokenizer.decode([...said, ...tokens.map(({ token }) => token)].slice(shownFrom));
      let shown = '';
      const show = (now: string): void => {
        // A token can end inside a character: its beginning is shown when the rest has come.
        if (!o.json && now.startsWith(shown)) process.stdout.write(now.slice(shown.length));
        shown = now;
      };
      await interruptible(async (signal) => {
        if (o.routing && moeLayersOf(language.config).length === 0)
          fail(
            'ERR_LIBMOE_ARGUMENT',
            `--routing: ${o.model} has no MoE layers${model === language ? '' : ' in its language model'}`,
          );
        const stop = new Set(endTokens(language, checkpoint));
        if (tokenizer.eosId !== undefined) stop.add(tokenizer.eosId);
        const options = { ...sampling, signal, stop: [...stop] };
        const stream =
          model instanceof LanguageModel
            ? generate(model, prompt, options)
            : generateWithImages(model, { ids: prompt, pixels, starts }, options);
        for await (const token of stream) {
          tokens.push(token);
          show(text());
        }
        show(text());
      }).finally(done);
      const ids = [...prompt, ...tokens.map(({ token }) => token)];
      if (!o.json) process.stdout.write('\n');
      if (o.json) {
        const each = tokens.map((token) => ({ ...token, text: tokenizer.decode([token.token]) }));
        printJson({ text: text(), ids, promptTokens: prompt.length, ...(o.routing && { tokens: each }) });
      } else if (o.routing)
        console.log(`\n${routingTable(tokens, (id) => JSON.stringify(tokenizer.decode([id])))}`);
    });
}

type Generated = import('../models/language/index.ts').GeneratedToken;

/** The conversation as the checkpoint's template writes it. */
async function conversation({ prompt, system, tokenizer }: Options, checkpoint: string): Promise<string> {
  const { statSync } = await import('node:fs');
  const path = await import('node:path');
  const { applyChatTemplate, loadChatTemplate } = await import('../data/index.ts');
  const from = tokenizer ?? checkpoint;
  const folder = statSync(from).isDirectory() ? from : path.dirname(from);
  const messages = [
    ...(system === undefined ? [] : [{ role: 'system', content: system }]),
    { role: 'user', content: prompt },
  ];
  return applyChatTemplate(messages, loadChatTemplate(folder));
}

/** A row per token, a column per MoE layer: experts with their weights. */
function routingTable(tokens: readonly Generated[], text: (id: number) => string): string {
  const layers = tokens[0]?.routing?.map(({ layer }) => `layer ${layer}`) ?? [];
  return table(
    ['token', ...layers],
    tokens.map(({ token, routing = [] }) => [
      text(token),
      ...routing.map(({ experts, weights }) =>
        experts.flatMap((e, i) => (e < 0 ? [] : [`${e} (${weights[i]!.toFixed(2)})`])).join(' '),
      ),
    ]),
  );
}
