// Run by npm in a checkout (`npm ci`, `npm install`, `npm pack`): TypeScript to dist/, native code to build/ and prebuilds/. Does nothing when the
// hash of sources and flags is that of the last build: npm runs it again at the first `npx libmoe`. Holds a lock, so that two do not build at once.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './lock.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => path.join(root, ...parts);

async function* filesIn(folder) {
  for (const entry of (await readdir(folder, { withFileTypes: true }).catch(() => [])).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesIn(file);
    else yield file;
  }
}

async function hashOf(paths, extra) {
  const hash = createHash('sha256').update(extra);
  for (const item of paths) {
    const info = await stat(at(item)).catch(() => undefined);
    const files = info?.isDirectory() ? filesIn(at(item)) : info ? [at(item)] : [];
    for await (const file of files) hash.update(path.relative(root, file)).update(await readFile(file));
  }
  return hash.digest('hex');
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] }); // npm pack --json owns stdout
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
}

async function upToDate(name, hash, proof, build) {
  const stamp = at('.cmake', `${name}.sha256`);
  const last = await readFile(stamp, 'utf8').catch(() => '');
  if (last === hash && (await stat(at(proof)).catch(() => undefined))) return;
  await build();
  await writeFile(stamp, hash);
}

const binary = path.join('prebuilds', `${process.platform}-${process.arch}`, 'libmoe.node');
// Warnings as errors (LIBMOE_WERROR) make no other binary.
const hasMpi = spawnSync('mpicc', ['--version'], { stdio: 'ignore' }).status === 0;
const flags = `${process.env.LIBMOE_CUDA ?? 'AUTO'} ${process.env.LIBMOE_CUDA_ARCHITECTURES ?? ''} ${hasMpi ? 'mpi' : ''}`;

try {
  await mkdir(at('.cmake'), { recursive: true });
  await withLock(at('.cmake', 'prepare.lock'), async () => {
    await upToDate(
      'typescript',
      await hashOf(['ts', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'], ''),
      'dist/index.js',
      async () => {
        await rm(at('dist'), { recursive: true, force: true });
        run(process.execPath, [at('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);
      },
    );
    // npm does this when it links a command, but `npx libmoe` finds its link of an earlier build.
    await chmod(at('dist', 'cli', 'main.js'), 0o755);
    await upToDate(
      'native',
      await hashOf(['native', 'cuda', 'CMakeLists.txt', 'scripts/build-native.mjs'], flags),
      binary,
      async () => {
        run(process.execPath, [at('scripts', 'build-native.mjs')]);
        await mkdir(path.dirname(at(binary)), { recursive: true });
        // libmoe_mpi.so is there where Open MPI was found.
        for (const name of ['libmoe.node', 'libmoe_mpi.so']) {
          const to = path.join(path.dirname(at(binary)), name);
          await rm(to, { force: true });
          if (!(await stat(at('build', 'Release', name)).catch(() => undefined))) continue;
          await copyFile(at('build', 'Release', name), `${to}.tmp`);
          spawnSync('strip', ['--strip-unneeded', `${to}.tmp`], { stdio: 'ignore' });
          await rename(`${to}.tmp`, to);
        }
      },
    );
  });
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
