import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { Command, Option } from 'commander';
import { fail, packageRoot } from '../native/index.ts';

/** Builds the native part from the sources in the package; works when no binary loads. */
export function buildCommand(): Command {
  return new Command('build')
    .description('build the native part of an installed package from source')
    .addOption(
      new Option('--cuda <mode>', 'CUDA kernels: AUTO builds them when nvcc is found')
        .choices(['AUTO', 'ON', 'OFF'])
        .default('AUTO'),
    )
    .addHelpText(
      'after',
      '\nNeeds cmake >= 3.25, g++ >= 12 and, beside libmoe, the packages cmake-js@8 and node-addon-api@8.',
    )
    .action((options: { cuda: string }) => {
      const script = path.join(packageRoot, 'scripts', 'build-native.mjs');
      const result = spawnSync(process.execPath, [script, '--cuda', options.cuda], { stdio: 'inherit' });
      if (result.status !== 0) {
        fail(
          'ERR_LIBMOE_BUILD',
          'the native build failed; the lines above say why. It needs cmake >= 3.25, g++ >= 12, "npm i cmake-js@8 node-addon-api@8"',
        );
      }
      console.log('built; "npx libmoe inspect" shows what it can do');
    });
}
