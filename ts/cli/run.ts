import { existsSync } from 'node:fs';
import module from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { fail } from '../native/index.ts';

/**
 * Runs a user's TypeScript (or JavaScript) program. Node 24 and newer strip types themselves and know `using`; older ones get the same through
 * the typescript package, hooked into the module loader.
 */
export function runCommand(): Command {
  return new Command('run')
    .description("run a TypeScript script that imports 'libmoe'")
    .argument('<script>', 'a .ts, .mts, .js or .mjs file')
    .argument('[arguments...]', 'passed on to the script as process.argv')
    .passThroughOptions()
    .allowUnknownOption()
    .action(async (script: string, rest: string[]) => {
      const file = path.resolve(script);
      if (!existsSync(file)) fail('ERR_LIBMOE_FILE', `no such script: ${file}`);
      module.register('./script-hooks.js', import.meta.url);
      process.argv = [process.argv[0]!, file, ...rest];
      await import(pathToFileURL(file).href);
    });
}
