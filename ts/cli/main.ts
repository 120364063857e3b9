#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { codeOf, fail, packageRoot } from '../native/index.ts';
import { benchCommand } from './bench.ts';
import { buildCommand } from './build.ts';
import { compareCommand } from './compare.ts';
import { dataCommand } from './data.ts';
import { demoCommand } from './demo.ts';
import { evalCommand } from './eval.ts';
import { generateCommand } from './generate.ts';
import { inspectCommand } from './inspect.ts';
import { launchCommand } from './launch.ts';
import { logitsCommand } from './logits.ts';
import { collect } from './options.ts';
import { planCommand } from './plan.ts';
import { reportCommand } from './report.ts';
import { rescoreCommand } from './rescore.ts';
import { runCommand } from './run.ts';
import { scoreCommand } from './score.ts';
import { sweepCommand } from './sweep.ts';
import { tokenizerCommand } from './tokenizer.ts';
import { trainCommand } from './train.ts';
import { upcycleCommand } from './upcycle.ts';

const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as {
  version: string;
};

/** Codes that say the work itself went wrong (exit 1); every other code says that the input was (exit 2). */
const workFailed = new Set([
  'ERR_LIBMOE_NOT_FINITE',
  'ERR_LIBMOE_OUT_OF_MEMORY',
  'ERR_LIBMOE_BUILD',
  'ERR_LIBMOE_NO_BINARY',
  'ERR_LIBMOE_COLLECTIVE',
  'ERR_LIBMOE_DOWNLOAD',
]);

const verbose = () => new Option('--verbose', 'show stack traces of errors');
const imports = () =>
  new Option(
    '--import <file>',
    'first import a file that registers routers of your own (repeatable)',
  ).argParser(collect);
let showStack = false;

const program = new Command('libmoe')
  .description(
    'Mixture-of-Experts research: pretraining, sparse upcycling, evaluation and routing diagnostics',
  )
  .version(version)
  .addHelpText(
    'after',
    '\nFirst: npx libmoe demo\nEvery command has --help with an example, and --json. Exit codes: 0 done, 1 the work failed, 2 wrong input, 130 stopped.',
  )
  .addOption(verbose())
  .hook('preAction', async (_, command) => {
    const {
      verbose,
      import: files = [],
      out,
    } = command.optsWithGlobals<{
      verbose?: boolean;
      import?: string[];
      out?: string;
    }>();
    showStack = verbose ?? false;
    // Of any command: Node would take it for the current folder.
    if (out === '')
      fail(
        'ERR_LIBMOE_ARGUMENT',
        '--out is empty: name a file or folder (is a variable of your script unset?)',
      );
    if (files.length === 0) return;
    const { importUserModule } = await import('../experiment/user-modules.ts');
    for (const file of files) await importUserModule(file);
  })
  .showHelpAfterError('(--help shows the options)')
  .enablePositionalOptions()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'ERR_LIBMOE_ARGUMENT: ')) })
  .exitOverride();

const commands = [
  demoCommand,
  trainCommand,
  upcycleCommand,
  evalCommand,
  scoreCommand,
  rescoreCommand,
  compareCommand,
  generateCommand,
  logitsCommand,
  launchCommand,
  planCommand,
  sweepCommand,
  reportCommand,
  tokenizerCommand,
  dataCommand,
  runCommand,
  inspectCommand,
  buildCommand,
  benchCommand,
];
for (const make of commands) {
  const command = make();
  for (const each of [command, ...command.commands])
    each.copyInheritedSettings(program).exitOverride().addOption(verbose()).addOption(imports());
  program.addCommand(command);
}

try {
  await program.parseAsync();
} catch (error) {
  const code = report(error);
  process.exitCode ??= code; // an interrupted command has set 130
}

function report(error: unknown): number {
  if (error instanceof CommanderError) {
    // Help and version end here too; commander has already printed what there is to say.
    return error.exitCode === 0 ? 0 : 2;
  }
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  if (showStack && error instanceof Error) console.error(error.stack);
  else
    console.error(
      code ? message : `ERR_LIBMOE_INTERNAL: ${message} (run again with --verbose for the stack trace)`,
    );
  return code && !workFailed.has(code) ? 2 : 1;
}
