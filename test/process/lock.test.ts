import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../storage/temporary.ts';

const root = temporaryFolder();
const script = JSON.stringify(
  pathToFileURL(path.resolve(import.meta.dirname, '../../scripts/lock.mjs')).href,
);

describe('the lock of prepare.mjs', () => {
  it.each([
    ['free', undefined],
    ['left by a dead process', String(2 ** 22 + 12345)],
    ['left empty', ''],
  ])('lets one process in at a time: %s', async (_, content) => {
    const [lock, log] = [path.join(root, 'lock'), path.join(root, `log-${content}`)];
    if (content !== undefined) writeFileSync(lock, content);
    const program = `
      import { appendFileSync } from 'node:fs';
      import { withLock } from ${script};
      for (let i = 0; i < 5; i++) await withLock(${JSON.stringify(lock)}, async () => {
        appendFileSync(${JSON.stringify(log)}, 'in ');
        await new Promise((resolve) => setTimeout(resolve, 3));
        appendFileSync(${JSON.stringify(log)}, 'out ');
      });`;
    const processes = Array.from({ length: 5 }, () =>
      spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'ignore', 'inherit'],
      }),
    );
    const codes = await Promise.all(processes.map(async (p) => (await once(p, 'exit'))[0] as number));
    expect(codes).toEqual([0, 0, 0, 0, 0]);
    expect(readFileSync(log, 'utf8')).toBe('in out '.repeat(25));
    expect(existsSync(lock)).toBe(false);
    expect(readdirSync(root).filter((name) => name.startsWith('lock'))).toEqual([]);
  });
});
