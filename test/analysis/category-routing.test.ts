import { describe, expect, it } from 'vitest';
import { type CategoryChoices, loadByCategory } from '../../ts/analysis/index.ts';

const records = (layer: string, chosen: Record<string, number[]>, outputs?: number): CategoryChoices[] =>
  Object.entries(chosen).map(([category, experts]) => ({ layer, category, experts, outputs }));

describe('load by category', () => {
  it('counts choices, of several records too, and leaves out those that went nowhere', () => {
    const [first] = loadByCategory([
      ...records('vision.0', { animals: [0, 1, 1, -1], food: [2, 2] }, 4),
      ...records('vision.0', { animals: [0, 3, 1, 1] }, 4),
    ]);
    expect(first).toMatchObject({ layer: 'vision.0', experts: 4 });
    expect(first!.categories).toEqual([
      { category: 'animals', choices: 7, load: [2 / 7, 4 / 7, 0, 1 / 7] },
      { category: 'food', choices: 2, load: [0, 0, 1, 0] },
    ]);
  });

  it('orders layers by part and depth', () => {
    const names = ['3', 'projector', 'vision.10', 'vision.2'];
    const layers = loadByCategory(names.flatMap((layer) => records(layer, { a: [0, 1] })));
    expect(layers.map(({ layer }) => layer)).toEqual(['vision.2', 'vision.10', 'projector', '3']);
  });

  it('says in bits what an expert tells of the category', () => {
    const informationOf = (chosen: Record<string, number[]>): number =>
      loadByCategory(records('0', chosen, 4))[0]!.information;
    expect(informationOf({ a: [0, 1, 2, 3], b: [3, 2, 1, 0] })).toBe(0);
    expect(informationOf({ a: [0, 1], b: [2, 3] })).toBeCloseTo(1, 12);
    expect(informationOf({ a: [0], b: [1], c: [2], d: [3, 3, 3] })).toBeCloseTo(2, 12);
    // H(5/8, 3/8) − (H(3/4, 1/4) + H(1/2, 1/2)) / 2
    const bits = (...p: number[]): number => -p.reduce((sum, q) => sum + q * Math.log2(q), 0);
    expect(informationOf({ a: [0, 0, 0, 1], b: [0, 1] })).toBeCloseTo(
      bits(5 / 8, 3 / 8) - (bits(3 / 4, 1 / 4) + 1) / 2,
      12,
    );
    // A category without a choice says nothing.
    expect(informationOf({ a: [0, 1], b: [-1, -1], c: [2, 3] })).toBeCloseTo(1, 12);
  });
});
