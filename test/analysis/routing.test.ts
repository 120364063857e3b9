import { describe, expect, it } from 'vitest';
import { normalisedEntropy, type RoutingStep, routingByLayer } from '../../ts/analysis/index.ts';

const steps: RoutingStep[] = [
  {
    step: 1,
    moe: {
      '3': { counts: [8, 0, 0, 0], entropy: 1.2, margin: 0.1, dropped: 2 },
      '1': { counts: [1, 1], entropy: 0.6 },
    },
  },
  { step: 2 },
  {
    step: 3,
    moe: {
      '3': { counts: [4, 2, 2, 0], entropy: 1.1, margin: 0.2, dropped: 0 },
      '1': { counts: [3, 1], margin: Number.NaN },
    },
  },
];

describe('routing by layer', () => {
  it('takes the load from the last steps and the series from all', () => {
    const [first, third] = routingByLayer(steps, { lastShare: 0.5 });
    expect(first).toMatchObject({
      layer: '1',
      experts: 2,
      load: [0.75, 0.25],
      droppedShare: 0,
      idle: 0,
      maxOverMean: 1.5,
    });
    expect(first?.entropy).toEqual([{ step: 1, value: 0.6 }]);
    expect(first?.margin).toEqual([]);
    expect(third).toMatchObject({
      layer: '3',
      load: [0.5, 0.25, 0.25, 0],
      maxOverMean: 2,
      idle: 0.25,
      droppedShare: 0,
    });
    expect(third?.loadEntropy).toBeCloseTo(0.75, 12); // 1.5 bits of 2
    expect(third?.margin).toEqual([
      { step: 1, value: 0.1 },
      { step: 3, value: 0.2 },
    ]);
    expect(third?.balance.map(({ value }) => value)).toEqual([0, expect.closeTo(0.75, 12)]);
  });
  it('adds the counts of several steps, and their drops', () => {
    const [, third] = routingByLayer(steps, { lastShare: 1 });
    expect(third?.load).toEqual([12 / 16, 2 / 16, 2 / 16, 0]);
    expect(third?.droppedShare).toBeCloseTo(2 / 16, 12);
  });
  it('sorts layers as numbers and takes null for what a router does not tell', () => {
    const moe = Object.fromEntries(
      ['10', '9', 'vision.2'].map((name) => [name, { counts: [1, 1], entropy: null, margin: null }]),
    );
    const layers = routingByLayer([{ step: 1, moe }]);
    expect(layers.map(({ layer }) => layer)).toEqual(['9', '10', 'vision.2']);
    expect(layers[0]?.entropy).toEqual([]);
  });
  it('says nothing of a dense run', () => {
    expect(routingByLayer([{ step: 1 }, { step: 2, moe: {} }])).toEqual([]);
  });
  it('entropy is 1 for equal counts and 0 for one expert', () => {
    expect(normalisedEntropy([5, 5, 5, 5])).toBeCloseTo(1, 14);
    expect(normalisedEntropy([0, 7])).toBe(0);
    expect(normalisedEntropy([0, 0])).toBeNaN();
    expect(normalisedEntropy([3])).toBe(1);
  });
  it('refuses nonsense', () => {
    expect(() => routingByLayer([...steps, { step: 4, moe: { '1': { counts: [1, 2, 3] } } }])).toThrow(
      'step 4, layer 1: 2 non-negative',
    );
    expect(() => routingByLayer([{ step: 1, moe: { '0': { counts: [-1, 2] } } }])).toThrow('ERR_LIBMOE_DATA');
    expect(() => routingByLayer(steps, { lastShare: 0 })).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});
