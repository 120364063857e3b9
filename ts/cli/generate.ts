import { Command } from 'commander';
import { interruptible } from './interrupt.ts';
import { number, whole } from './options.ts';
import { printJson } from './output.ts';

interface Options {
  model: string;
  prompt: string;
  tokenizer?: string;
  maxTokens: string;
  temperature: string;
  topK?: string;
  topP?: string;
  seed: string;
  json?: boolean;
}

export function generateCommand(): Command {
  return new Command('generate')
    .description('continue a text, token by token as it is made')
    .requiredOption('--model <checkpoint>', 'a checkpoint folder, a run folder, or a llama2c .bin')
    .requiredOption('--prompt <text>', 'the beginning')
    .option('--tokenizer <file>', 'when the checkpoint has none of its own')
    .option('--max-tokens <n>', 'at most so many new tokens', '100')
    .option('--temperature <t>', '0: always the likeliest token', '0.8')
    .option('--top-k <k>', 'only the k likeliest tokens')
    .option('--top-p <p>', 'only the likeliest tokens that together have this probability')
    .option('--seed <n>', 'of the sampling', '0')
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      "\nExample: npx libmoe generate --model runs/demo/moe --prompt 'My fellow citizens' --temperature 0.5\nMore: docs/models.md",
    )
    .action(async (o: Options) => {
      const sampling = {
        maxTokens: whole('--max-tokens', o.maxTokens),
        temperature: number('--temperature', o.temperature),
        seed: number('--seed', o.seed),
        ...(o.topK && { topK: whole('--top-k', o.topK) }),
        ...(o.topP && { topP: number('--top-p', o.topP) }),
      };
      const { resolveCheckpoint } = await import('../experiment/index.ts');
      const { loadTokenizer } = await import('../data/index.ts');
      const { generate, loadModel } = await import('../models/language/index.ts');
      const checkpoint = resolveCheckpoint(o.model);
      const tokenizer = loadTokenizer(o.tokenizer ?? checkpoint);
      const model = await loadModel(checkpoint);
      model.eval();
      const prompt = tokenizer.encode(o.prompt);
      const ids = [...prompt];
      let shown = '';
      const show = (text: string): void => {
        // A token can end inside a character: its beginning is shown when the rest has come.
        if (!o.json && text.startsWith(shown)) process.stdout.write(text.slice(shown.length));
        shown = text;
      };
      await interruptible(async (signal) => {
        const stream = generate(model, prompt, {
          ...sampling,
          signal,
          ...(tokenizer.eosId !== undefined && { stop: [tokenizer.eosId] }),
        });
        for await (const token of stream) {
          ids.push(token.token);
          show(tokenizer.decode(ids));
        }
        show(tokenizer.decode(ids));
      }).finally(() => model.dispose());
      if (o.json) printJson({ text: tokenizer.decode(ids), ids, promptTokens: prompt.length });
      else process.stdout.write('\n');
    });
}
