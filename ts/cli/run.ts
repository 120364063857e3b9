import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { codeOf } from '../native/index.ts';
import { log } from './output.ts';

/** Runs a user's TypeScript (or JavaScript) program. */
export function runCommand(): Command {
  return new Command('run')
    .description("run a TypeScript script that imports 'libmoe'")
    .argument('<script>', 'a .ts, .mts, .js or .mjs file')
    .argument('[arguments...]', 'passed on to the script as process.argv')
    .option(
      '--json',
      "before the script's name: print one JSON object at the end, what the script prints goes to stderr",
    )
    .passThroughOptions()
    .allowUnknownOption()
    .addHelpText(
      'after',
      '\nExample: npx libmoe run train.ts --my-own-option 3\nMore: the README shows such a script; docs/ has a page for each part',
    )
    .action(async (script: string, rest: string[], o: { json?: boolean }) => {
      const { hookTypeScript, userModule } = await import('../experiment/user-modules.ts');
      const file = userModule(script);
      if (o.json) printAtExit(file);
      hookTypeScript();
      process.argv = [process.argv[0]!, file, ...rest];
      try {
        await import(pathToFileURL(file).href);
      } catch (error) {
        // A mistake in the script is its author's to find: the stack says where it is.
        if (codeOf(error) !== undefined || !(error instanceof Error)) throw error;
        log(error.stack ?? error.message);
        process.exitCode = 1;
      }
    });
}

function printAtExit(script: string): void {
  const started = performance.now();
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = process.stderr.write.bind(process.stderr) as typeof process.stdout.write;
  process.once('exit', (exitCode) => {
    const seconds = Number(((performance.now() - started) / 1000).toFixed(3));
    write(`${JSON.stringify({ script, exitCode, seconds }, null, 2)}\n`);
  });
}
