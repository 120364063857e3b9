// Vitest's global set-up of the emulated projects: builds build/Emulated/libmoe_emulated.node unless it is up to date, so that `npm test` stays one command.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import {
  hashOf,
  nativeFlags,
  nativeSources,
  upToDate,
  whileNobodyBuilds,
} from '../../scripts/up-to-date.mjs';

const root = path.resolve(import.meta.dirname, '../..');

/** The addon whose device cuda:0 is emulated. */
export const emulatedBinary: string = path.join(root, 'build', 'Emulated', 'libmoe_emulated.node');

export async function setup(): Promise<void> {
  await whileNobodyBuilds(async () => {
    const hash = await hashOf([...nativeSources, 'test/emulator'], nativeFlags);
    await upToDate('emulator', hash, path.relative(root, emulatedBinary), async () => {
      console.log(
        'building the emulated CUDA device (once after each change of native/, cuda/ or test/emulator/)',
      );
      const build = [path.join(root, 'scripts', 'build-native.mjs'), '--emulator-only'];
      const { status, stdout, stderr } = spawnSync(process.execPath, build, { cwd: root, encoding: 'utf8' });
      if (status !== 0) throw new Error(`the emulated CUDA device did not build:\n${stdout}\n${stderr}`);
    });
  });
}
