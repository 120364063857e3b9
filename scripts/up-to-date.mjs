import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './lock.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => path.join(root, ...parts);

const folderOnPath = (program) =>
  (process.env.PATH ?? '')
    .split(path.delimiter)
    .find((folder) => folder && existsSync(path.join(folder, program)));
// AUTO makes another binary once nvcc is there, and libmoe_mpi.so once Open MPI is.
const nvcc = process.env.CUDACXX ?? folderOnPath('nvcc');
const mpicc = folderOnPath('mpicc');
/** What the compiled output depends on beside the sources. Warnings as errors (LIBMOE_WERROR) make no other binary. */
const onPath = (name) =>
  (process.env.PATH ?? '')
    .split(path.delimiter)
    .some((folder) => folder && existsSync(path.join(folder, name)));
export const nativeFlags = [
  onPath('mpicc') ? 'mpi' : '',
  process.env.LIBMOE_CUDA ?? 'AUTO',
  process.env.LIBMOE_CUDA_ARCHITECTURES,
  nvcc,
  mpicc,
].join(' ');
export const nativeSources = ['native', 'cuda', 'CMakeLists.txt', 'scripts/build-native.mjs'];

async function* filesIn(folder) {
  for (const entry of (await readdir(folder, { withFileTypes: true }).catch(() => [])).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesIn(file);
    else yield file;
  }
}

/** One hash over the named files and folders of the checkout and over `extra`. */
export async function hashOf(paths, extra) {
  const hash = createHash('sha256').update(extra);
  for (const item of paths) {
    const info = await stat(at(item)).catch(() => undefined);
    const files = info?.isDirectory() ? filesIn(at(item)) : info ? [at(item)] : [];
    for await (const file of files) hash.update(path.relative(root, file)).update(await readFile(file));
  }
  return hash.digest('hex');
}

/** Calls `build` unless it has run for this hash and `proof`, one of its outputs, is still there. */
export async function upToDate(name, hash, proof, build) {
  const stamp = at('.cmake', `${name}.sha256`);
  const last = await readFile(stamp, 'utf8').catch(() => '');
  if (last === hash && (await stat(at(proof)).catch(() => undefined))) return;
  await build();
  await writeFile(stamp, hash);
}

/** Runs `body` while no other process builds in this checkout. */
export async function whileNobodyBuilds(body) {
  await mkdir(at('.cmake'), { recursive: true });
  await withLock(at('.cmake', 'prepare.lock'), body);
}
