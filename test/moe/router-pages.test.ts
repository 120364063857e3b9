import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { packageRoot } from '../../ts/native/index.ts';

const docs = join(packageRoot, 'docs');
const page = (name: string): string => readFileSync(join(docs, 'routers', `${name}.md`), 'utf8');
const common = page('smoe');
const optionsOf = (name: string): string[] =>
  Object.keys((routerDefinition(name).options as { shape?: object }).shape ?? {});

describe('docs/routers', () => {
  it.each(routerNames())('%s has a page with its options and behaviours', (name) => {
    const text = page(name);
    expect(text.startsWith(`# \`${name}\``)).toBe(true);
    const own = optionsOf(name).filter((option) => !text.includes(`\`${option}\``));
    // What every router has may be looked up on the first page, if this one sends there.
    const elsewhere = /\(smoe\.md\)|\(\.\.\/moe\.md#/.test(text) ? common : '';
    expect(own.filter((option) => !elsewhere.includes(`\`${option}\``))).toEqual([]);
    for (const compat of routerDefinition(name).compat ?? []) expect(text).toContain(`\`${compat}\``);
  });

  it('is listed on the page of the layer', () => {
    const overview = readFileSync(join(docs, 'moe.md'), 'utf8');
    expect(routerNames().filter((name) => !overview.includes(`(routers/${name}.md)`))).toEqual([]);
  });
});
