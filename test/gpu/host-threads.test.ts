// Worker threads of Node and the threads of communicators use one device. The thread sanitizer reads along while three threads use what the host keeps about it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-threads-'));
const program = path.join(folder, 'threads');
const compiler = (...args: string[]) => spawnSync('g++', args, { cwd: root, encoding: 'utf8' });
const empty = ['-xc++', '-fsanitize=thread', '-', '-o', program];
const found =
  process.arch === 'x64' &&
  spawnSync('g++', empty, { input: 'int main() {}', encoding: 'utf8' }).status === 0;
if (!found) console.log('skipped: host threads, there is no g++ with a thread sanitizer for x86-64');

it.skipIf(!found)(
  'threads touch nothing of a device without its lock',
  () => {
    try {
      const { status, stderr } = compiler(
        ...['-std=c++20', '-O1', '-g', '-w', '-fsanitize=thread', '-DLIBMOE_EMULATOR'],
        ...['-Itest/emulator', '-I.', '-Inative', '-xc++', '-o', program],
        ...['fault', 'state', 'upload', 'discovery'].map((name) => `cuda/${name}.cu`),
        ...['test/gpu/host-threads.cpp', 'test/emulator/runtime.cpp'],
      );
      expect([status, stderr]).toEqual([0, '']);
      const { LIBMOE_EMULATED_ARCH: _, ...env } = process.env;
      const run = spawnSync(program, [], { encoding: 'utf8', env });
      expect({ status: run.status, stderr: run.stderr, stdout: run.stdout }).toEqual({
        status: 0,
        stderr: '',
        stdout: 'done\n',
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  300_000,
);
