import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../ts/storage/safetensors.ts';
import { libmoe, root } from '../cli/libmoe.ts';
import { tinyCorpus } from '../experiment/tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-router-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** The files that the page shows: blocks that begin with their name. */
const page = readFileSync(path.join(root, 'docs/write-a-router.md'), 'utf8');
const files = new Map(
  [...page.matchAll(/^```(?:ts|yaml)\n(?:\/\/|#) (\S+)\n([\s\S]*?)^```$/gm)].map(([, name, text]) => [
    name!,
    text!,
  ]),
);
for (const [name, text] of files) writeFileSync(path.join(folder, name), text);
tinyCorpus(folder);

const losses = (run: string): number[] =>
  readFileSync(path.join(folder, 'runs', run, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { loss: number }).loss);

async function command(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await libmoe(args, { cwd: folder });
  expect(code, stderr).toBe(0);
  return stdout;
}

describe('docs/write-a-router.md', () => {
  it('shows a router of fewer than 40 lines that imports from libmoe alone', () => {
    expect([...files.keys()]).toEqual(['skywork.ts', 'recipe.yaml', 'train.ts']);
    const lines = files.get('skywork.ts')!.split('\n');
    expect(lines.filter((line) => line.trim() !== '').length).toBeLessThan(40);
    const sources = lines.flatMap((line) => / from '(.+)'/.exec(line)?.[1] ?? []);
    expect(new Set(sources)).toEqual(new Set(['libmoe']));
  });

  it('trains it by name from the recipe', async () => {
    await command('train', 'recipe.yaml');
    const all = losses('skywork');
    expect(all).toHaveLength(30);
    expect(all.at(-1)!, all.join(' ')).toBeLessThan(all[0]! - 0.5);
    const resolved = readFileSync(path.join(folder, 'runs/skywork/recipe.yaml'), 'utf8');
    expect(resolved).toMatch(/router:\n +name: skywork\n +spread: 1.5\n +highest: 0.01\n/);
    expect(resolved).toMatch(/imports:\n +- skywork.ts\n/);
    const latest = readFileSync(path.join(folder, 'runs/skywork/checkpoints/latest'), 'utf8').trim();
    const saved = openSafetensors(path.join(folder, 'runs/skywork/checkpoints', latest));
    const buffers = saved.names().filter((name) => name.endsWith('router.coefficient'));
    expect(buffers).toHaveLength(2);
  });

  it('goes on with its own recipe, and other commands get the router by --import', async () => {
    await command('train', 'runs/skywork/recipe.yaml', '--resume', '--steps', '31');
    expect(losses('skywork')).toHaveLength(31);
    const generate = ['generate', '--model', 'runs/skywork', '--prompt', 'one', '--max-tokens', '3'];
    expect(await command(...generate, '--import', 'skywork.ts')).toMatch(/^one/);
    const without = await libmoe(generate, { cwd: folder });
    expect(without.stderr).toMatch(/ERR_LIBMOE_CONFIG.*no router "skywork"/);
  });

  it('trains it from the script', async () => {
    expect(await command('run', 'train.ts')).toMatch(/^loss after 10 steps: \d/);
    expect(losses('from-script').slice(0, 1)).toEqual(losses('skywork').slice(0, 1));
  });

  it('says which import is not there', async () => {
    const { code, stderr } = await libmoe(['train', 'recipe.yaml', '--set', 'imports=[no.ts]'], {
      cwd: folder,
    });
    expect(stderr).toMatch(/^ERR_LIBMOE_FILE: no such script: .*no\.ts/m);
    expect(code).toBe(2);
  });
});
