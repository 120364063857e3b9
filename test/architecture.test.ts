import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const root = path.resolve(import.meta.dirname, '..');
// A room may import from those after it.
const rooms =
  'cli experiment report analysis evaluation training upcycling models data moe nn distributed storage tensor native'.split(
    ' ',
  );

function files(folder: string, ending: RegExp): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .map((name) => path.join(folder, name));
}
const text = (file: string): string => readFileSync(path.join(root, file), 'utf8');
const roomOf = (file: string): string => path.relative('ts', file).split(path.sep)[0]!;

const sources = files('ts', /\.ts$/);

describe('the house', () => {
  it('has only the rooms of the plan', () => {
    const seen = new Set(sources.filter((f) => path.dirname(f) !== 'ts').map(roomOf));
    expect([...seen].filter((room) => !rooms.includes(room))).toEqual([]);
  });

  it('imports go down, never up', () => {
    const wrong: string[] = [];
    for (const file of sources.filter((f) => path.dirname(f) !== 'ts')) {
      const from = rooms.indexOf(roomOf(file));
      for (const [, target] of text(file).matchAll(/(?:from|import\()\s*'(\.{1,2}\/[^']+)'/g)) {
        const resolved = path.join(path.dirname(file), target!);
        if (!resolved.startsWith('ts')) wrong.push(`${file} leaves ts/: ${target}`);
        else if (path.dirname(resolved) !== 'ts' && rooms.indexOf(roomOf(resolved)) < from)
          wrong.push(`${file} → ${resolved}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('reaches the addon through ts/native alone', () => {
    expect(
      sources.filter((f) => roomOf(f) !== 'native' && /node-gyp-build|\.node['"]/.test(text(f))),
    ).toEqual([]);
  });

  it('ends the process and reads its arguments in ts/cli alone', () => {
    const wrong = sources.filter(
      (f) => roomOf(f) !== 'cli' && /process\.(argv|exit\b|exitCode)/.test(text(f)),
    );
    expect(wrong).toEqual([]);
  });

  it('has no default export, no any, and no rooms for odds and ends', () => {
    expect(sources.filter((f) => /^export default|: any[;,)>\s[]|\bas any\b/m.test(text(f)))).toEqual([]);
    expect(sources.filter((f) => /(^|[/-])(utils?|helpers?|common|misc)\b/.test(f))).toEqual([]);
  });

  it('keeps the native doors', () => {
    const wrong: string[] = [];
    const allowed: Record<string, RegExp> = {
      'native/core': /^core\//,
      'native/ops': /^(core|ops)\//,
      'native/cpu': /^(core|ops|cpu)\//,
      'native/comm': /^(core|ops|comm)\//,
      'native/binding': /^(core|ops|binding)\//,
    };
    for (const [folder, pattern] of Object.entries(allowed)) {
      for (const file of files(folder, /\.(h|cpp)$/)) {
        for (const [, target] of text(file).matchAll(/#include "([^"]+)"/g)) {
          if (!pattern.test(target!)) wrong.push(`${file} → ${target}`);
        }
        if (folder !== 'native/binding' && /<napi\.h>|<node_api\.h>/.test(text(file)))
          wrong.push(`${file} sees Node`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('calls an op family the same through all walls', () => {
    const families = files('native/ops', /\.h$/).map((f) => path.basename(f, '.h'));
    expect(families.length).toBeGreaterThan(10);
    const walls = (f: string) => [
      // One for every device: it gets streams as opaque handles.
      f === 'collective' ? `native/comm/${f}.cpp` : `native/cpu/${f}.cpp`,
      `native/binding/${f}.cpp`,
      `ts/native/${f}.ts`,
      `ts/tensor/${f}.ts`,
      `test/ops/${f}.test.ts`,
      `bench/${f}.bench.ts`,
    ];
    const missing = families.flatMap(walls).filter((file) => {
      try {
        return text(file).length === 0;
      } catch {
        return true;
      }
    });
    expect(missing).toEqual([]);
  });
});
