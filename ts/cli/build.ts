import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { Command, Option } from 'commander';
import { binaryPath, fail, packageRoot } from '../native/index.ts';
import { oneOf } from './options.ts';
import { printJson } from './output.ts';

/** Builds the native part from the sources in the package; works when no binary loads. */
export function buildCommand(): Command {
  return new Command('build')
    .description('build the native part of an installed package from source')
    .addOption(
      new Option(
        '--cuda <mode>',
        'CUDA kernels: ON, OFF, or AUTO: where nvcc is found (default: $LIBMOE_CUDA, else AUTO)',
      ).argParser((text) => oneOf('--cuda', text.toUpperCase(), ['AUTO', 'ON', 'OFF'])),
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nNeeds cmake >= 3.25, g++ >= 12 and, beside libmoe, the packages cmake-js@8 and node-addon-api@8.\n\nExample: npx libmoe build --cuda OFF\nMore: docs/building.md',
    )
    .action((options: { cuda?: string; json?: boolean }) => {
      const script = path.join(packageRoot, 'scripts', 'build-native.mjs');
      const cuda = options.cuda ? ['--cuda', options.cuda] : [];
      const result = spawnSync(process.execPath, [script, ...cuda], {
        stdio: ['ignore', options.json ? 2 : 1, 2],
      });
      // build-native.mjs ends with 2 when it was called wrongly, and has said how.
      if (result.status === 2) {
        process.exitCode = 2;
        return;
      }
      if (result.status !== 0) {
        fail(
          'ERR_LIBMOE_BUILD',
          'the native build failed; the lines above say why. It needs cmake >= 3.25, g++ >= 12, "npm i cmake-js@8 node-addon-api@8"',
        );
      }
      if (options.json) printJson({ binary: binaryPath() });
      else console.log('built; "npx libmoe inspect" shows what it can do');
    });
}
