import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { RecordScanner, type RecordSpan } from '../../../ts/data/conversations/record-scanner.ts';
import { type ConversationOptions, conversationsOf, openConversations } from '../../../ts/data/index.ts';
import { record } from './made-up.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-conversations-'));
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;
function fileOf(text: string): string {
  const file = path.join(folder, `${files++}.json`);
  writeFileSync(file, text);
  return file;
}
const warnings: string[] = [];
const opened = (file: string | string[], options: ConversationOptions = {}) => {
  warnings.length = 0;
  return openConversations(file, { warn: (message) => warnings.push(message), ...options });
};

describe('RecordScanner', () => {
  const scan = (text: string, cuts: readonly number[]): string[] => {
    const bytes = Buffer.from(text);
    const scanner = new RecordScanner();
    const spans: RecordSpan[] = [];
    const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
      (a, b) => a - b,
    );
    let from = 0;
    for (const end of ends) {
      spans.push(...scanner.push(bytes.subarray(from, end)));
      from = end;
    }
    const { last, torn } = scanner.finish();
    expect(torn).toBe(false);
    if (last) spans.push(last);
    return spans.map(({ start, length }) => bytes.toString('utf8', start, start + length));
  };
  const values = fc.array(fc.jsonValue({ noUnicodeString: false }), { maxLength: 6 });
  const cuts = fc.array(fc.nat(), { maxLength: 8 });

  it('finds the elements of any array, wherever it is cut into pieces', () => {
    fc.assert(
      fc.property(values, cuts, fc.constantFrom(undefined, 1, '\t'), (list, at, space) => {
        expect(
          scan(`\n ${JSON.stringify(list, null, space)} \n`, at).map((each) => JSON.parse(each)),
        ).toEqual(list.map((each) => JSON.parse(JSON.stringify(each))));
      }),
    );
  });

  it('finds JSON lines, the last with or without a newline', () => {
    fc.assert(
      fc.property(
        values,
        cuts,
        fc.constantFrom('\n', '\r\n', '\n\n \n'),
        fc.boolean(),
        (list, at, newline, ended) => {
          const lines = [record(['a', 'b']), ...list].map((each) => JSON.stringify(each));
          expect(scan(lines.join(newline) + (ended ? newline : ''), at).map((each) => each.trim())).toEqual(
            lines,
          );
        },
      ),
    );
  });
});

describe('openConversations', () => {
  const good = [
    record(['<image>\nwhat is it?', 'a cat'], 'a.png'),
    record(['who?', 'me', 'and you?', 'you']),
  ];

  it('reads arrays and lines, several files, in any order', async () => {
    const array = fileOf(`\ufeff${JSON.stringify(good, null, 2)}`);
    const lines = fileOf(`${good.map((each) => JSON.stringify(each)).join('\n')}\n`);
    const data = await opened([array, lines]);
    expect(data.length).toBe(4);
    expect(Array.from(data.words)).toEqual([6, -5, 6, -5]);
    expect(data.nameOf(3)).toBe(`${lines}, record 2`);
    const [a, b] = [await data.read(2), await data.read(1)];
    expect(a).toEqual({
      turns: [
        { role: 'user', text: '<image>\nwhat is it?' },
        { role: 'assistant', text: 'a cat' },
      ],
      images: ['a.png'],
      unplaced: [],
    });
    expect(b).toEqual(await data.read(3));
    expect(warnings).toEqual([]);
    await data.close();
    expect((await opened(array)).fingerprint).not.toBe((await opened(lines)).fingerprint);
  });

  const mistakes: [string, unknown, RegExp][] = [
    ['not an object', 17, /expected an object, got a number/],
    ['no turns', { conversations: [] }, /has no turns/],
    ['no list of turns', { conversations: 'hello' }, /must be a list of turns, got a string/],
    [
      'an unknown role',
      { conversations: [{ from: 'robot', value: 'x' }] },
      /turn 1 must be "from" one of .* got "robot"/,
    ],
    ['a role of Object', { conversations: [{ from: 'constructor', value: 'x' }] }, /got "constructor"/],
    ['an empty answer', record(['what?', ' \n']), /turn 2 \(gpt\) is empty/],
    [
      'a missing value',
      { conversations: [{ from: 'human' }] },
      /turn 1 must have a string in "value", got undefined/,
    ],
    [
      'an answer first',
      { conversations: [{ from: 'gpt', value: 'x' }] },
      /turn 1 must be from the user, got one from the assistant/,
    ],
    [
      'two questions in a row',
      { conversations: ['a', 'b'].map((value) => ({ from: 'human', value })) },
      /turn 2 must be from the assistant, got one from the user/,
    ],
    ['a question last', record(['a', 'b', 'c']), /last turn must be an answer/],
    ['an image that is not shown', record(['a', 'b'], 'a.png'), /the text has 0 <image> for 1 image/],
    ['a mark without image', record(['<image> a', 'b']), /the text has 1 <image> for 0 images/],
    [
      'too few images',
      record(['<image><image>', 'b', '<image>', 'd'], ['a.png', 'b.png']),
      /has 3 <image> for 2 images/,
    ],
    [
      'an image in an answer',
      record(['a', '<image>'], 'a.png'),
      /turn 2 is from the assistant and holds <image>/,
    ],
    [
      'a path that is none',
      record(['<image>', 'b'], [3] as never),
      /must be a path or a list of paths, got 3/,
    ],
  ];
  it.each(mistakes)('leaves out a record with %s, and names it', async (_, bad, reason) => {
    const file = fileOf(JSON.stringify([good[0], bad, good[1]]));
    const data = await opened(file);
    expect(data.length).toBe(2);
    expect(data.bad.count).toBe(1);
    expect(data.bad.first[0]).toMatch(reason);
    expect(warnings).toEqual([
      expect.stringMatching(/: 1 of 3 records are left out, the first of them record 2: /),
    ]);
    expect(warnings[0]).toMatch(reason);
    expect(data.nameOf(1)).toBe(`${file}, record 3`);
    // With an index there and without one.
    for (const cache of [undefined, path.join(folder, 'elsewhere')])
      await expect(opened(file, { onBad: 'stop', cache })).rejects.toThrow(/ERR_LIBMOE_DATA: .*, record 2: /);
    expect(conversationsOf([good[0], bad, good[1]]).bad.first[0]).toMatch(reason);
  });

  it('goes on after text that is not JSON, and after a file that is cut off', async () => {
    const [first, second] = good.map((each) => JSON.stringify(each));
    const broken = await opened(fileOf(`[${first}, {"conversations": oops}, ${second}]`));
    expect([broken.length, broken.bad.count]).toEqual([2, 1]);
    expect(broken.bad.first[0]).toMatch(/record 2: is not JSON/);
    const line = await opened(fileOf(`${first}\n{"conversations": [\n${second}\n`));
    expect([line.length, line.bad.first[0]]).toEqual([2, expect.stringMatching(/record 2: is not JSON/)]);
    const torn = await opened(fileOf(`[${first}, ${second!.slice(0, 30)}`));
    expect([torn.length, torn.bad.first[0]]).toEqual([
      1,
      expect.stringMatching(/record 2: the file ends before the list does/),
    ]);
    await expect(opened(fileOf('[]'))).rejects.toThrow(/ERR_LIBMOE_DATA: no usable conversation/);
    await expect(opened(path.join(folder, 'nowhere.json'))).rejects.toThrow(
      /ERR_LIBMOE_FILE: cannot read .*no such file/,
    );
    const packed = path.join(folder, 'packed.json');
    writeFileSync(packed, Buffer.from([0x1f, 0x8b, 8, 0]));
    await expect(opened(packed)).rejects.toThrow(/is packed \(gzip\).*unpack it first/);
  });

  it('keeps its index until the file changes, and sees when it changes under its hands', async () => {
    const file = fileOf(JSON.stringify(good));
    await opened(file);
    const index = `${file}.libmoe-index`;
    const made = readFileSync(index);
    const { mtimeMs } = statSync(index);
    const data = await opened(file);
    expect(statSync(index).mtimeMs).toBe(mtimeMs);
    // A damaged index is made again.
    writeFileSync(index, made.subarray(0, made.length - 1));
    expect((await opened(file)).fingerprint).toBe(data.fingerprint);
    expect(readFileSync(index)).toEqual(made);
    writeFileSync(file, JSON.stringify([good[1], ...good]));
    utimesSync(file, new Date(), new Date(Date.now() + 5000));
    await expect(data.read(0)).rejects.toThrow(/ERR_LIBMOE_DATA: .*record 1 is no longer what it was/);
    const changed = await opened(file);
    expect([changed.length, changed.fingerprint === data.fingerprint]).toEqual([3, false]);
    await data.close();
  });

  it("reads as LibMoE's preprocessing does when asked to", async () => {
    const records = [
      {
        conversations: [
          { from: 'gpt', value: 'hello' },
          ...(record(['what? <image> ', 'cat']) as { conversations: object[] }).conversations,
        ],
        image: 'a.png',
      },
      record(['<image> one <image>\ntwo', 'b', 'c <image>', 'd'], ['1.png', '2.png', '3.png']),
    ];
    const data = await opened(fileOf(JSON.stringify(records)), { compat: 'libmoe' });
    expect((await data.read(0)).turns.map(({ text }) => text)).toEqual(['<image>\nwhat?', 'cat']);
    const second = await data.read(1);
    expect(second.turns.map(({ text }) => text)).toEqual(['<image>\none \ntwo', 'b', '<image>\nc', 'd']);
    expect([second.images, second.unplaced]).toEqual([['1.png', '2.png'], ['3.png']]);
    await data.close();
  });
});

describe('a file of a hundred megabytes', () => {
  it('is indexed and read with a few megabytes of memory', () => {
    const file = path.join(folder, 'large.json');
    const descriptor = openSync(file, 'w');
    const count = 50_000;
    const text = 'a “quoted” \\ and [bracketed] {text} – é \u{1f408} '.repeat(40);
    for (let from = 0; from < count; from += 1000) {
      const records = Array.from({ length: 1000 }, (_, i) =>
        JSON.stringify(record([`${from + i} ${text}`, 'yes'], undefined, from + i)),
      );
      writeSync(descriptor, `${from === 0 ? '[' : ','}${records.join(',\n')}`);
    }
    writeSync(descriptor, ']');
    closeSync(descriptor);
    expect(statSync(file).size).toBeGreaterThan(95e6);
    const entry = pathToFileURL(path.resolve(import.meta.dirname, '../../../dist/index.js')).href;
    const program = `import { data } from ${JSON.stringify(entry)};
      const before = process.resourceUsage().maxRSS;
      const file = ${JSON.stringify(file)};
      const conversations = await data.openConversations(file);
      const texts = [];
      for (const i of [0, ${count - 1}, 31234]) texts.push(parseInt((await conversations.read(i)).turns[0].text));
      await conversations.close();
      console.log(JSON.stringify({ length: conversations.length, texts, megabytes: (process.resourceUsage().maxRSS - before) / 1024 }));`;
    const child = spawnSync(
      process.execPath,
      ['--max-old-space-size=96', '--input-type=module', '-e', program],
      {
        encoding: 'utf8',
        timeout: 120_000,
      },
    );
    expect(child.stderr).toBe('');
    const { length, texts, megabytes } = JSON.parse(child.stdout) as {
      length: number;
      texts: number[];
      megabytes: number;
    };
    expect({ length, texts }).toEqual({ length: count, texts: [0, count - 1, 31234] });
    console.log(
      `peak memory above that of the program: ${megabytes.toFixed(0)} MB for a file of ${(statSync(file).size / 1e6).toFixed(0)} MB`,
    );
    expect(megabytes).toBeLessThan(100);
    expect(statSync(`${file}.libmoe-index`).size).toBeLessThan(1000 + 20 * count);
  }, 180_000);
});
