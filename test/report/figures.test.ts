import { describe, expect, it } from 'vitest';
import { evaluationFigure, loadFigure, lossFigure, progressFigure, smooth } from '../../ts/report/index.ts';
import { escapeHtml, html } from '../../ts/report/markup.ts';
import { compact, duration, fixed, percent } from '../../ts/report/numbers.ts';

describe('smoothing', () => {
  it('averages as many values before as after', () => {
    expect(smooth([1, 2, 6, 2, 1], 1)).toEqual([1, 3, 10 / 3, 3, 1]);
    expect(smooth([1, 2, 6, 2, 1], 0)).toEqual([1, 2, 6, 2, 1]);
  });
  it('leaves a straight line straight, ends included', () => {
    expect(smooth([1, 2, 3, 4, 5, 6], 2)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(smooth([], 3)).toEqual([]);
  });
});

describe('figures', () => {
  it('write runs, axes and dots into the SVG, names escaped', async () => {
    const svg = await lossFigure([
      {
        run: 'a<b>&c',
        points: [
          { tokens: 1, loss: 3 },
          { tokens: 2, loss: Number.NaN },
          { tokens: 3, loss: 2 },
        ],
        heldOut: [{ tokens: 3, loss: 2.5 }],
      },
    ]);
    expect(svg).toMatch(/^<svg/);
    expect(svg).toContain('loss (nats per token)');
    expect(svg).toContain('a&lt;b&gt;&amp;c');
    expect(svg).not.toContain('<b>');
    expect(svg).not.toContain('NaN');
  });
  it('thin long curves', async () => {
    const points = Array.from({ length: 20_000 }, (_, i) => ({ tokens: i, loss: 5 - i / 10_000 }));
    expect((await lossFigure([{ run: 'long', points, heldOut: [] }])).length).toBeLessThan(60_000);
  });
  it('mark the uniform share and print the shares', async () => {
    const layer = {
      layer: '2',
      experts: 4,
      load: [0.7, 0.1, 0.15, 0.05],
      loadEntropy: 0,
      maxOverMean: 2.8,
      idle: 0,
      droppedShare: 0,
      entropy: [],
      margin: [],
      balance: [],
    };
    const svg = await loadFigure([layer]);
    for (const label of ['1 ◂ uniform', '(1 = uniform = 25 %)', '>70<', '>5.0<', 'expert', 'layer'])
      expect(svg).toContain(label);
  });
  it('draw a chance line and values for accuracies', async () => {
    const svg = await evaluationFigure([
      {
        task: 'Word order',
        metric: 'acc',
        run: 'moe',
        value: 0.61,
        low: 0.55,
        high: 0.67,
        chance: 0.5,
        fromZero: true,
      },
    ]);
    expect(svg).toContain('stroke-dasharray');
    expect(svg).toContain('0.610');
    expect(svg).toContain('Word order');
  });
});

describe('numbers in words', () => {
  it.each<[string, string]>([
    [compact(1_234_567), '1.23 M'],
    [compact(999_600), '1.00 M'],
    [compact(12), '12'],
    [compact(0.1234), '0.123'],
    [compact(9.66e12), '9.66 T'],
    [compact(undefined), '–'],
    [duration(41.27), '41.3 s'],
    [duration(66.8), '1 min 7 s'],
    [duration(3660), '1 h 1 min'],
    [duration(Number.NaN), '–'],
    [fixed(-0.5, 2), '−0.50'],
    [percent(0.1234), '12.3 %'],
  ])('%s', (shown, expected) => expect(shown).toBe(expected));

  it('escape', () => {
    expect(escapeHtml(`<a href="x">'&`)).toBe('&lt;a href=&quot;x&quot;&gt;&#39;&amp;');
    expect(html`<p>${'<'}${html`<b>${1}</b>`}${undefined}${['>', html`<i></i>`]}</p>`.text).toBe(
      '<p>&lt;<b>1</b>&gt;<i></i></p>',
    );
  });
});

describe('the progress figure', () => {
  it('draws a line per run, the best and the end', async () => {
    const points = [3, 2, 1, 1.5, 2].map((value, i) => ({ tokens: 1000 * (i + 1), value }));
    const svg = await progressFigure([
      {
        run: 'a<b',
        name: 'held/bits_per_byte',
        points,
        best: { tokens: 3000, step: 30, value: 1 },
        stop: { tokens: 5000, step: 50 },
      },
      { run: 'other', name: 'held/bits_per_byte', points: points.slice(0, 2) },
      { run: 'other', name: 'piqa/acc', points },
    ]);
    for (const label of ['held/bits_per_byte', 'piqa/acc', 'best, step 30', 'ended early, step 50', 'a&lt;b'])
      expect(svg).toContain(label);
    expect(svg).not.toContain('a<b');
  });
});
