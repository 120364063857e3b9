import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { downloadDataset } from '../../../ts/data/bundles/index.ts';
import { commit, type Hub, startHub } from './hub.ts';
import { everything, testFolder } from './sources.ts';

const folder = testFolder();
let hub: Hub;
afterEach(() => hub?.close());
let made = 0;
const files = {
  '.gitattributes': '*.parquet filter=lfs',
  'README.md': '---\nlicense: mit\n---\n',
  'data/test-00000-of-00001.jsonl': Array.from({ length: 4000 }, (_, i) => `{"n":${i}}\n`).join(''),
  'data/a b.txt': 'größer',
};
const big = 'data/test-00000-of-00001.jsonl';
const get = (options: object = {}, to = join(folder, `to-${++made}`)) =>
  downloadDataset('made/up', { to, hubUrl: hub.url, ...options });

it('fetches all files of a commit, over several pages', async () => {
  hub = await startHub('made/up', files, { large: [big] });
  const seen: string[] = [];
  const result = await get({
    onFile: ({ path, had }: { path: string; had: number }) => seen.push(`${path} ${had}`),
  });
  expect(result).toMatchObject({ commit, files: 4 });
  expect(everything(result.folder)).toEqual(
    Object.fromEntries(
      Object.entries(files).map(([name, text]) => [name, Buffer.from(text).toString('latin1')]),
    ),
  );
  expect(seen).toEqual(Object.keys(files).map((name) => `${name} 0`));
  const only = await get({ include: ['**/*.jsonl'] });
  expect(Object.keys(everything(only.folder))).toEqual([big]);
  await expect(get({ include: ['*.zip'] })).rejects.toThrow('has no files that match *.zip');
});

it('goes on where it was cut off, and fetches nothing twice', async () => {
  hub = await startHub('made/up', files, { large: [big] });
  hub.cutAfter = 20_000;
  const to = join(folder, 'resumed');
  await expect(get({}, to)).rejects.toThrow('ERR_LIBMOE_DOWNLOAD');
  const part = join(to, 'made/up', commit, `${big}.incomplete`);
  const { length } = readFileSync(part);
  expect(length).toBeGreaterThan(0);
  expect(existsSync(join(to, 'made/up', commit, big))).toBe(false);
  hub.asked.length = 0;
  await get({}, to);
  expect(readFileSync(join(to, 'made/up', commit, big), 'utf8')).toBe(files[big]);
  expect(hub.asked).toEqual([`${big} from ${length}`, 'data/a b.txt']);
  hub.asked.length = 0;
  await get({}, to);
  expect(hub.asked).toEqual([]);
});

it('notices bytes that are not those announced', async () => {
  hub = await startHub('made/up', files, { wrongHash: 'README.md' });
  await expect(get()).rejects.toThrow('README.md is not what the hub announced');
  // A wrong beginning is found too, and thrown away.
  const to = join(folder, 'spoiled');
  await hub.close();
  hub = await startHub('made/up', files, { large: [big] });
  await get({ include: ['README.md'] }, to);
  const part = join(to, 'made/up', commit, 'data');
  await get({ include: ['data/a*'] }, to);
  writeFileSync(join(part, `${big.slice(5)}.incomplete`), 'wrong beginning');
  await expect(get({}, to)).rejects.toThrow('is not what the hub announced');
  await get({}, to);
  expect(readFileSync(join(to, 'made/up', commit, big), 'utf8')).toBe(files[big]);
});

it('says what the hub refuses', async () => {
  hub = await startHub('made/up', files, { token: 'hf_made_up' });
  await expect(get()).rejects.toThrow(/the hub refuses \(401\).*HF_TOKEN/);
  expect((await get({ accessToken: 'hf_made_up' })).files).toBe(4);
  await expect(
    downloadDataset('no/such', { to: folder, hubUrl: hub.url, accessToken: 'hf_made_up' }),
  ).rejects.toThrow('does not know this data set');
  await expect(downloadDataset('../up', { to: folder, hubUrl: hub.url })).rejects.toThrow(
    'ERR_LIBMOE_ARGUMENT',
  );
  const { url } = hub;
  await hub.close();
  await expect(downloadDataset('made/up', { to: folder, hubUrl: url })).rejects.toThrow(
    /^ERR_LIBMOE_DOWNLOAD: cannot download made\/up: fetch failed \((ECONNREFUSED|UND_ERR_SOCKET)\)/,
  );
});

it('writes no file that the hub names outside of the folder', async () => {
  for (const name of ['../out.txt', '/etc/out.txt', 'a/../../b', 'C:\\x', 'a//b']) {
    hub = await startHub('made/up', { [name]: 'x' });
    await expect(get()).rejects.toThrow('which leads out of the folder');
    await hub.close();
  }
});
