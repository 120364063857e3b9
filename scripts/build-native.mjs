#!/usr/bin/env node
// The only caller of cmake-js. Leaves build/<config>/libmoe.node. Called by hand (`npm run build:native`), by scripts/prepare.mjs, by
// `libmoe build`, by prebuildify (`--node-gyp` passes node-gyp's own options, ignored here) and by binding.gyp.
// CMake works in .cmake/, because node-gyp empties build/.
import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  strict: false,
  options: {
    debug: { type: 'boolean', default: false },
    config: { type: 'string' },
    cuda: { type: 'string', default: process.env.LIBMOE_CUDA ?? 'AUTO' },
    architectures: { type: 'string', default: process.env.LIBMOE_CUDA_ARCHITECTURES },
    emulator: { type: 'boolean', default: process.env.LIBMOE_EMULATOR === '1' },
    'emulator-only': { type: 'boolean', default: false },
    werror: { type: 'boolean', default: process.env.LIBMOE_WERROR === '1' },
  },
});
const cuda = values.cuda.toUpperCase();
if (!['AUTO', 'ON', 'OFF'].includes(cuda)) {
  console.error(`ERR_LIBMOE_ARGUMENT: LIBMOE_CUDA (or --cuda) expects AUTO, ON or OFF, got "${values.cuda}"`);
  process.exit(2);
}
const emulator = values.emulator || values['emulator-only'];
const config = values.config ?? (values.debug ? 'Debug' : 'Release');

let BuildSystem;
try {
  ({ BuildSystem } = createRequire(path.join(process.cwd(), 'package.json'))('cmake-js'));
} catch {
  try {
    ({ BuildSystem } = createRequire(path.join(root, 'package.json'))('cmake-js'));
  } catch {
    console.error(
      'ERR_LIBMOE_BUILD: building from source needs cmake-js and node-addon-api: run "npm install cmake-js@8 node-addon-api@8" first, with cmake >= 3.25 and g++ >= 12 on PATH.',
    );
    process.exit(1);
  }
}

const output = path.join(root, 'build', config);
const fresh = path.join(root, '.cmake', config, 'out');
const build = new BuildSystem({
  directory: root,
  out: path.join(root, '.cmake', config),
  config,
  ...(values['emulator-only'] && { target: 'libmoe_emulated' }),
  parallel: String(availableParallelism()),
  cMakeOptions: {
    LIBMOE_CUDA: cuda,
    LIBMOE_OUTPUT_DIR: fresh,
    LIBMOE_WERROR: values.werror ? 'ON' : 'OFF',
    LIBMOE_EMULATOR: emulator ? 'ON' : 'OFF',
    ...(values.architectures && { LIBMOE_CUDA_ARCHITECTURES: values.architectures }),
  },
});
try {
  await build.configure(); // always: a cached configuration would keep old options
  await build.build();
} catch {
  process.exit(1); // cmake-js has said why
}
// By rename, never in place: another process may have the old binary loaded. libmoe_mpi.so is there where Open MPI was found.
const made = [
  ...(values['emulator-only']
    ? []
    : [
        ['libmoe.node', output],
        ['libmoe_mpi.so', output],
      ]),
  // node-gyp-build takes any .node file of the folder: the emulated one has a folder of its own.
  ...(emulator ? [['libmoe_emulated.node', path.join(root, 'build', 'Emulated')]] : []),
];
for (const [name, folder] of made) {
  const from = path.join(fresh, name);
  const to = path.join(folder, name);
  if (!(await stat(from).catch(() => undefined))) {
    await rm(to, { force: true });
    continue;
  }
  await mkdir(folder, { recursive: true });
  const temporary = path.join(folder, `.${name}-${process.pid}.tmp`);
  await copyFile(from, temporary);
  await rename(temporary, to);
}
