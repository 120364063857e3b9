// Run by npm in a checkout (`npm ci`, `npm install`, `npm pack`): TypeScript to dist/, native code to build/ and prebuilds/. Does nothing when the
// hash of sources and flags is that of the last build: npm runs it again at the first `npx libmoe`. Holds a lock, so that two do not build at once.
import { spawnSync } from 'node:child_process';
import { chmod, copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { hashOf, nativeFlags, nativeSources, upToDate, whileNobodyBuilds } from './up-to-date.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => path.join(root, ...parts);

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] }); // npm pack --json owns stdout
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
}

const binary = path.join('prebuilds', `${process.platform}-${process.arch}`, 'libmoe.node');

try {
  await whileNobodyBuilds(async () => {
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
    await upToDate('native', await hashOf(nativeSources, nativeFlags), binary, async () => {
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
    });
  });
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
