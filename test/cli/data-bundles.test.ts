import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { startHub } from '../data/bundles/hub.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-data-'));
afterAll(() => rmSync(folder, { recursive: true }));
const source = path.join(folder, 'source');
mkdirSync(source);
writeFileSync(
  path.join(source, 'train.csv'),
  'question,answer,image\nwhat?,a cat,a.png\nwhere?,home,a.png\n',
);
writeFileSync(path.join(source, 'a.png'), '\x89PNG cat', 'latin1');
const out = path.join(folder, 'out');

it('data import, show and verify', async () => {
  const file = path.join(folder, 'conversations.json');
  const made = await libmoe([
    'data',
    'import',
    source,
    '--id',
    'made/up',
    '--out',
    out,
    '--license',
    'mit',
    '--json',
  ]);
  expect([made.code, made.stderr.trim()]).toEqual([0, 'train.jsonl: 2 rows, 1 media files']);
  const bundle = path.join(out, 'made/up/main');
  expect(JSON.parse(made.stdout)).toMatchObject({
    folder: bundle,
    unchanged: false,
    license: 'mit',
    splits: [{ split: 'train', rows: 2 }],
  });
  const one = ['--turns', '1', '--where', 'answer=home,nowhere', '--json'];
  const talk = await libmoe(['data', 'conversations', bundle, file, ...one]);
  expect(JSON.parse(talk.stdout)).toEqual({ file, imageFolder: bundle, conversations: 1, questions: 1 });
  const caption = await libmoe(['data', 'conversations', bundle, file, '--captions']);
  expect(caption.stdout).toContain('1 conversations from 2 questions');
  expect(readFileSync(file, 'utf8')).toContain('"value":"a cat home"');
  const shown = await libmoe(['data', 'show', bundle, '--record', '2']);
  expect(shown.stdout).toMatch(
    /made\/up at main, licence: mit[\s\S]*image\s+media[\s\S]*train\.jsonl, row 2:[\s\S]*"where\?"/,
  );
  const json = JSON.parse((await libmoe(['data', 'show', bundle, '--json'])).stdout) as {
    record: { row: object };
  };
  expect(json.record.row).toMatchObject({ question: 'what?', answer: 'a cat' });
  expect((await libmoe(['data', 'verify', bundle])).stdout).toMatch(/main is whole: 2 files/);
  const [picture] = readdirSync(path.join(bundle, 'media'));
  writeFileSync(path.join(bundle, 'media', picture!), 'dog');
  const verified = await libmoe(['data', 'verify', bundle, '--json']);
  expect([verified.code, verified.stdout]).toEqual([2, '']);
  expect(verified.stderr).toMatch(new RegExp(`^ERR_LIBMOE_BUNDLE: .*${picture} is damaged`));
  const nothing = await libmoe(['data', 'import', path.join(folder, 'no'), '--id', 'made/up', '--out', out]);
  expect(nothing.stderr).toMatch(/^ERR_LIBMOE_FILE: there is no/);
}, 120_000);

it('data import takes images out of columns of base64 text', async () => {
  const texts = path.join(folder, 'texts');
  mkdirSync(texts);
  const picture = Buffer.from('\x89PNG\r\n\x1a\n and all that belongs to it', 'latin1');
  const row = (image: string) => `{"question":"what?","bytes":"${image}"}\n`;
  writeFileSync(path.join(texts, 'test.jsonl'), row(picture.toString('base64')).repeat(2));
  const made = ['data', 'import', texts, '--id', 'made/base64', '--out', out, '--base64-images', 'bytes'];
  expect((await libmoe(made)).stderr.trim()).toBe('test.jsonl: 2 rows, 1 media files');
  const media = path.join(out, 'made/base64/main/media');
  expect(readdirSync(media).map((name) => readFileSync(path.join(media, name)))).toEqual([picture]);
  writeFileSync(path.join(texts, 'test.jsonl'), row('a cat'));
  const wrong = await libmoe([...made, '--replace']);
  expect(wrong.stderr).toMatch(
    /^ERR_LIBMOE_DATA: .*test\.jsonl, record 1: column "bytes" should hold an image as base64 text, got "a cat"/,
  );
}, 60_000);

it('an import that is killed leaves nothing that looks whole; the next one cleans up', async () => {
  const big = path.join(folder, 'big');
  mkdirSync(big);
  writeFileSync(
    path.join(big, 'test.jsonl'),
    Array.from({ length: 400_000 }, (_, n) => `{"n":${n}}\n`).join(''),
  );
  writeFileSync(path.join(big, 'a-train.jsonl'), '{"n":0}\n');
  const args = ['data', 'import', big, '--id', 'big/one', '--out', out];
  const place = path.join(out, 'big/one');
  const killed = await libmoe(args, {
    during: (child) => {
      const watch = setInterval(() => {
        const begun =
          existsSync(place) &&
          readdirSync(place).some((name) => existsSync(path.join(place, name, 'test.jsonl')));
        if (begun) child.kill('SIGKILL');
        if (begun || child.exitCode !== null) clearInterval(watch);
      }, 2);
    },
  });
  expect(killed.signal).toBe('SIGKILL');
  expect(readdirSync(place).every((name) => name.startsWith('.main.tmp-'))).toBe(true);
  const again = await libmoe(args);
  expect(again.code).toBe(0);
  expect(readdirSync(place)).toEqual(['main']);
  expect(readFileSync(path.join(place, 'main/test.jsonl'), 'utf8').split('\n')).toHaveLength(400_001);
}, 120_000);

it('data download: from the hub to a bundle', async () => {
  const hub = await startHub('made/down', {
    'README.md': '---\nlicense: mit\n---\n',
    'data/test.jsonl': '{"a":1}\n',
  });
  try {
    const env = { HF_ENDPOINT: `${hub.url}/`, HF_TOKEN: '' };
    const done = await libmoe(['data', 'download', 'made/down', '--out', out, '--json'], { env });
    expect([done.code, done.stderr]).toEqual([0, expect.stringContaining('data/test.jsonl: 8 bytes')]);
    expect(JSON.parse(done.stdout)).toMatchObject({
      folder: path.join(out, 'made/down/main'),
      license: 'mit',
      made: { commit: '0123456789abcdef0123456789abcdef01234567' },
      splits: [{ split: 'test', rows: 1 }],
    });
    const none = await libmoe(['data', 'download', 'no/such', '--out', out], { env });
    expect([none.code, none.stderr.trim()]).toEqual([
      1,
      'ERR_LIBMOE_DOWNLOAD: cannot download no/such: the hub does not know this data set or revision',
    ]);
    expect(existsSync(path.join(out, '.hub/made/down/0123456789abcdef0123456789abcdef01234567'))).toBe(false);
  } finally {
    await hub.close();
  }
}, 120_000);
