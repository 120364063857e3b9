import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readRunFolder, report } from '../../ts/report/index.ts';
import { writeSampleRuns } from './sample-runs.ts';

let root = '';
let runs: string[] = [];
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'libmoe-report-'));
  runs = await writeSampleRuns(root);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

async function page(folders: readonly string[], options?: Parameters<typeof report>[2]) {
  const file = join(root, 'report.html');
  const summary = await report(folders, file, options);
  return { text: readFileSync(file, 'utf8'), summary };
}

describe('report', () => {
  it('is one page with every part and the verdict in words', async () => {
    const { text, summary } = await page(runs, { title: 'Demo', date: new Date('2026-01-02T03:04:05Z') });
    expect(text.match(/<svg/g)).toHaveLength(4);
    for (const part of ['Summary', 'Loss', 'Routing', 'Evaluation', 'Runs'])
      expect(text).toContain(`<h2>${part}</h2>`);
    expect(text).toContain('libmoe report · 2026-01-02 03:04 UTC · 3 runs');
    expect(summary.verdicts).toHaveLength(1);
    expect(summary.verdicts[0]).toMatch(
      /^moe is better than dense-continued: 1\.\d+ against \d\.\d+ bits per byte, .*24 documents/,
    );
    expect(text).toContain(summary.verdicts[0]);
    expect(summary.notes).toEqual([]);
    expect(text).toMatch(
      /<td class="number">3\.41 M<\/td><td class="number">1\.71 M<\/td><td class="number">1\.23 M<\/td>/,
    );
    expect(text).toContain('1 min 7 s');
    expect(text).toContain('chance 50.0 %');
    expect(text).toContain('<dt>commit</dt><dd>0123abc</dd>');
    expect(text).toContain('training tokens'); // an axis title inside a figure
    expect(text).toContain('layer 3');
  });

  it('shows how the evaluations during training went', async () => {
    const [first = ''] = runs;
    const line = (step: number, value: number, more = {}): string =>
      JSON.stringify({
        step,
        tokens: step * 4096,
        values: { 'held-out-text/bits_per_byte': value, 'held-out-text/byte_perplexity': 2, 'x/acc': 0.5 },
        metric: 'held-out-text/bits_per_byte',
        ...more,
      });
    const lines = [line(50, 3), line(100, 2, { best: true }), line(150, 2.5, { stop: 'no better <in> 1' })];
    const file = join(first, 'evaluations.jsonl');
    writeFileSync(file, lines.join('\n'));
    const { text } = await page(runs);
    expect(text.match(/<svg/g)).toHaveLength(5);
    expect(text).toContain('best, step 100');
    expect(text).toContain('ended early, step 150');
    expect(text).toContain(
      'dense-base: the best held-out-text/bits_per_byte is 2.0000, of step 100. Training was ended early at step 150: no better &lt;in&gt; 1.',
    );
    expect(text).toContain('>x/acc<');
    expect(text).not.toContain('byte_perplexity<');
    writeFileSync(file, '{"step":1}\n');
    const { summary } = await page(runs);
    expect(summary.notes).toEqual([
      expect.stringMatching(/dense-base: evaluations\.jsonl cannot be used: .*line 1/),
    ]);
    rmSync(file);
  });

  it('needs nothing from outside: no script, no address, no import', async () => {
    const { text } = await page(runs);
    expect(text).not.toMatch(/https?:|\/\/[a-z]/i);
    expect(text).not.toMatch(/<script|<link|<img|<iframe|@import|url\((?!#)|\son\w+=/i);
    expect(text.length).toBeLessThan(1_000_000);
  });

  it('gives the figures different ids, so that one does not take another’s clips and gradients', async () => {
    const { text } = await page(runs);
    const ids = [...text.matchAll(/\sid="([^"]+)"/g)].map((match) => match[1]);
    expect(ids.length).toBeGreaterThan(0);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('judges the runs it is told to', async () => {
    const { summary } = await page(runs, { compare: ['dense-base', 'dense-continued'] });
    expect(summary.verdicts[0]).toMatch(/^dense-continued is better than dense-base/);
    await expect(page(runs, { compare: ['moe', 'mo'] })).rejects.toThrow(
      'no run "mo" to compare; the runs are dense-base, moe',
    );
  });

  it('escapes whatever runs contain', async () => {
    const evil = join(root, '<b>evil & "run"');
    mkdirSync(join(evil, 'eval', 'final'), { recursive: true });
    writeFileSync(join(evil, 'recipe.yaml'), 'name: </pre><script>alert(1)</script>\n');
    writeFileSync(join(evil, 'metrics.jsonl'), '{"step":1,"loss":2}\n{"step":2,"loss":1}\n');
    writeFileSync(join(evil, 'environment.json'), '{"<i>key":"<u>value\'\\""}');
    writeFileSync(join(evil, 'summary.json'), '{"model":"<img src=x onerror=alert(2)>"}');
    const results = { results: { 't<s>': { alias: '<em>task', 'acc<q>,none': 0.5 } }, higher_is_better: {} };
    writeFileSync(join(evil, 'eval', 'final', 'results.json'), JSON.stringify(results));
    const { text } = await page([evil], { title: '<h1>title' });
    expect(text).not.toMatch(/<script|<b>evil|<i>key|<u>value|<img|<em>task|<q>|<h1>title|<s>/);
    expect(text).toContain('&lt;b&gt;evil &amp; &quot;run&quot;');
    expect(text).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
  });
});

describe('a run that lacks parts', () => {
  const make = (name: string, files: Record<string, string>): string => {
    const folder = join(root, name);
    for (const [file, content] of Object.entries(files)) {
      mkdirSync(join(folder, file, '..'), { recursive: true });
      writeFileSync(join(folder, file), content);
    }
    return folder;
  };

  it('is reported with visible notes', async () => {
    const bare = make('bare', { 'recipe.yaml': 'name: bare\n', 'eval/final/journal.jsonl': '' });
    const { text, summary } = await page([bare]);
    expect(summary.notes).toEqual([
      'bare: metrics.jsonl is missing: no loss curve and no routing figures.',
      'bare: environment.json is missing: no environment below.',
      'bare: eval/final/results.json is missing: that evaluation did not finish.',
    ]);
    for (const note of summary.notes) expect(text).toContain(`<p class="note">${note.slice(6)}`);
    expect(text).toContain('No run has a loss to draw');
    expect(text).toContain('No run has evaluation results.');
    expect(text).not.toContain('<svg');
  });

  it('is reported when a file is damaged', async () => {
    const damaged = make('damaged', {
      'recipe.yaml': 'name: damaged\n',
      'environment.json': '{"node": ',
      'metrics.jsonl': '{"step":1,"loss":3}\nnot json\n{"step":2,"loss":2}\n',
      'eval/final/results.json': '[]',
      'eval/step-000005/results.json': JSON.stringify({
        results: { text: { 'bits_per_byte,none': 2.5 } },
        higher_is_better: { text: { bits_per_byte: false } },
      }),
    });
    const { text, summary } = await page([damaged]);
    expect(summary.notes.map((note) => note.slice(9))).toEqual([
      expect.stringMatching(/metrics\.jsonl cannot be used: .*line 2/),
      expect.stringMatching(/environment\.json cannot be used/),
      expect.stringMatching(/eval\/final cannot be used: .*results\.json/),
      expect.stringMatching(/samples_text\.jsonl cannot be used, so text has no interval/),
    ]);
    expect(text).toContain('2.5000');
  });

  it('keeps a torn last line of metrics out and draws the rest', async () => {
    const torn = make('torn', { 'metrics.jsonl': '{"step":1,"loss":3}\n{"step":2,"loss":2}\n{"step":3,"lo' });
    expect(readRunFolder(torn).metrics.map(({ step }) => step)).toEqual([1, 2]);
    expect((await page([torn])).text.match(/<svg/g)).toHaveLength(1);
  });

  it('notes routing that cannot be read', async () => {
    const odd = make('odd', {
      'metrics.jsonl':
        '{"step":1,"loss":3,"moe":{"0":{"counts":[1,2]}}}\n{"step":2,"loss":2,"moe":{"0":{"counts":[1]}}}\n',
    });
    expect((await page([odd])).summary.notes).toContainEqual(
      expect.stringContaining('routing cannot be shown'),
    );
  });

  it('names no winner between runs over different documents', async () => {
    const results = JSON.stringify({
      results: { text: { 'bits_per_byte,none': 2.5 } },
      higher_is_better: {},
    });
    const sample = (hash: string): string =>
      `${JSON.stringify({ doc_id: 0, doc_hash: hash, bits_per_byte: [-10, 5] })}\n`;
    const [a, b] = ['a', 'b'].map((name) =>
      make(name, { 'eval/final/results.json': results, 'eval/final/samples_text.jsonl': sample(name) }),
    );
    expect((await page([a!, b!])).summary.verdicts).toEqual([
      expect.stringMatching(/^No verdict: .*of which 0 agree/),
    ]);
  });

  it('is refused when it is no run at all', async () => {
    const empty = join(root, 'empty');
    mkdirSync(empty);
    await expect(page([empty])).rejects.toThrow('is no run folder');
    await expect(page([join(root, 'nowhere')])).rejects.toThrow('ERR_LIBMOE_FILE');
    await expect(page([])).rejects.toThrow('ERR_LIBMOE_ARGUMENT');
    await expect(page([runs[0]!, runs[0]!])).rejects.toThrow('two runs are named "dense-base"');
  });
});
