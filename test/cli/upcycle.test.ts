import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { saveModel } from '../../ts/models/language/index.ts';
import { routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { tinyModel } from '../models/tiny.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-upcycle-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(async () => {
  using model = tinyModel();
  await saveModel(model, path.join(folder, 'dense'));
  writeFileSync(path.join(folder, 'text.txt'), 'the cat saw the dog');
});

let made = 0;
const upcycle = (...more: string[]) => {
  made += 1;
  const sizes = ['--from', 'dense', '--out', `moe-${made}`, '--experts', '4', '--top-k', '2'];
  return libmoe(['upcycle', ...sizes, ...more], { cwd: folder });
};

describe('libmoe upcycle', () => {
  it('measures both models and finds them equal where weights sum to 1', async () => {
    const { stdout, code } = await upcycle('--json', '--router', 'shared-v3');
    expect(code).toBe(0);
    const { stepZero, unlikeDense, family, transformers } = JSON.parse(stdout);
    expect(unlikeDense).toEqual([]);
    expect(family).toBe('LibMoeForCausalLM');
    expect(transformers).toEqual({
      family: 'MixtralForCausalLM',
      lost: ['router "shared-v3"', 'a shared expert'],
    });
    expect(stepZero.tokens).toBe(49);
    expect(stepZero.dense).toBeGreaterThan(1);
    expect(stepZero.upcycled).toBeCloseTo(stepZero.dense, 5);
    const { libmoe: block } = JSON.parse(readFileSync(path.join(folder, 'moe-1/config.json'), 'utf8'));
    expect(block.model.moe).toMatchObject({ sharedMix: 'half', routedScaling: 1, shared: { hidden: 40 } });
  });

  it('says why not, and by how much, where they do not', async () => {
    const { stdout } = await upcycle('--router', 'switch', '--routed-scaling', '2');
    expect(stdout).toMatch(
      /^only libmoe loads it: the nearest architecture of transformers, MixtralForCausalLM, knows no model with router "switch"; routedScaling 2$/m,
    );
    const [, dense, moe] = /dense (\d+\.\d+), upcycled (\d+\.\d+)/.exec(stdout)!.map(Number);
    expect(Math.abs(dense! - moe!)).toBeGreaterThan(0.001);
    expect(stdout).toMatch(/does not start as the dense one:\n {2}router switch: .*\n {2}routedScaling 2: /);
  });

  it('passes every option on', async () => {
    const { stdout, stderr } = await upcycle(
      ...['--json', '--router-option', 'balanceCoefficient=0.5', '--router-option', 'init.scheme=orthogonal'],
      ...['--capacity-factor', '1.5', '--compat', 'original', '--init-seeds', '1,2,3', '--perturb', '0.1'],
      ...['--reinitialise', '0.5', '--keep-first'],
    );
    const report = JSON.parse(stdout || stderr);
    expect(report.expertNoise).toEqual({ changed: 3, experts: 4, units: 20, hidden: 40 });
    expect(report.unlikeDense).toHaveLength(2);
    const { libmoe: block } = JSON.parse(readFileSync(path.join(folder, report.out, 'config.json'), 'utf8'));
    expect(block.model.moe).toMatchObject({
      compat: 'original',
      capacityFactor: 1.5,
      router: { name: 'smoe', balanceCoefficient: 0.5, init: { scheme: 'orthogonal' } },
    });
    const part = await upcycle(
      '--only',
      '*.moe.experts.*',
      '--init-scheme',
      'equal-norm',
      '--init-std',
      '0.1',
    );
    expect(part.stdout).toMatch(/not taken over, drawn anew: embedding.weight/);
  });

  it('writes the family that was asked for, or says what is lost in it and writes nothing', async () => {
    const { stdout } = await upcycle('--family', 'public');
    expect(stdout).toMatch(/^transformers loads it as MixtralForCausalLM$/m);
    const config = readFileSync(path.join(folder, `moe-${made}/config.json`), 'utf8');
    expect(JSON.parse(config).architectures).toEqual(['MixtralForCausalLM']);
    const ours = await upcycle('--family', 'LibMoeForCausalLM');
    expect(ours.stdout).toMatch(
      /^only libmoe loads it, as --family says; transformers has it as MixtralForCausalLM$/m,
    );
    const { code, stderr } = await upcycle('--family', 'MixtralForCausalLM', '--layers', 'every:2');
    expect(stderr).toMatch(
      /ERR_LIBMOE_UNSUPPORTED: MixtralForCausalLM knows no model with experts in some layers alone \(layers every:2\)/,
    );
    expect(code).not.toBe(0);
    expect(existsSync(path.join(folder, `moe-${made}`))).toBe(false);
  });

  it('lists the routers as the registry has them', async () => {
    const { stdout } = await libmoe(['upcycle', '--router', 'list', '--json']);
    const { routers } = JSON.parse(stdout) as { routers: { name: string; summary: string }[] };
    expect(routers.map(({ name }) => name)).toEqual(routerNames());
    for (const { name, summary } of routers) {
      expect(summary.length, name).toBeGreaterThan(5);
      expect(summary).toBe(routerDefinition(name).summary);
    }
  });

  it.each([
    ['a text without a tokenizer', ['--text', 'text.txt'], /ERR_LIBMOE_FILE: .*tokenizer/],
    ['a text that is not there', ['--text', 'no.txt'], /ERR_LIBMOE_FILE: no such text: no\.txt/],
    ['an option of no router', ['--router-option', 'blance=1'], /ERR_LIBMOE_CONFIG: .*"blance"/],
    ['half an option', ['--router-option', 'balance'], /ERR_LIBMOE_RECIPE: --router-option expects/],
    ['a family of no name', ['--family', 'Mixtral'], /ERR_LIBMOE_ARGUMENT: no family "Mixtral"/],
    ['noise without noise', ['--keep-first'], /ERR_LIBMOE_ARGUMENT: --keep-first goes with/],
  ])('refuses %s', async (_, args, message) => {
    const { code, stderr } = await upcycle(...args);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});
