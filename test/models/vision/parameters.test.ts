import { describe, expect, it } from 'vitest';
import { towerParameterReport, type VisionTowerOptions } from '../../../ts/models/vision/index.ts';
import { routerCases } from '../../moe/routers/cases.ts';
import { tinyClip, tinyExperts, tinySiglip, tinyTower } from './tiny.ts';

describe('the sizes of a tower', () => {
  it.each<VisionTowerOptions>([
    tinySiglip,
    { ...tinySiglip, pool: 'attention' },
    { ...tinySiglip, selectLayer: -2, resolution: 20 },
    { ...tinyClip, pool: 'class' },
    { ...tinyClip, compat: 'libmoe', scales: [1, 3] },
    {
      ...tinyClip,
      moe: {
        ...tinyExperts,
        layers: 'every:2',
        shared: { hidden: 5, sigmoidGate: true },
        expert: { gated: true },
      },
    },
    ...routerCases('vision-language')
      .filter(({ name, topKs }) => name !== 'hash' && topKs.includes(2))
      .map(
        ({ name, compat }): VisionTowerOptions => ({
          ...tinySiglip,
          moe: { ...tinyExperts, compat, router: { name }, shared: { hidden: 5 } },
        }),
      ),
  ])('are counted without making it: %j', (config) => {
    using tower = tinyTower(config);
    expect(towerParameterReport(config).total).toBe(tower.parameterCount());
  });

  it('are the published ones', () => {
    const so400m: VisionTowerOptions = {
      kind: 'siglip',
      imageSize: 224,
      patchSize: 14,
      dModel: 1152,
      layers: 27,
      heads: 16,
      hidden: 4304,
    };
    const dense = towerParameterReport(so400m);
    expect(dense.active).toBe(dense.total);
    // Every layer: 4 · 1152² + 2 · 1152 · 4304, and the attention over 256 tokens.
    const layer = 2 * 256 * (4 * 1152 ** 2 + 2 * 1152 * 4304) + 4 * 256 * 256 * 1152;
    const patches = 2 * 256 * 588 * 1152;
    expect(dense.flopsPerImage).toBeCloseTo(27 * layer + patches, -3);
    expect(towerParameterReport({ ...so400m, scales: [1, 3] }).flopsPerImage).toBeCloseTo(
      10 * dense.flopsPerImage,
      -3,
    );
    const moe = towerParameterReport({ ...so400m, moe: { experts: 6, topK: 3 } });
    expect(moe.routedExperts).toBe(27 * 6 * 9_922_000 + 27 * 6 * (2 * 1152 * 4304 + 4304 + 1152 - 9_922_000));
    expect(moe.total - moe.active).toBe(moe.routedExperts / 2);
    // LibMoE's tower of 1.75 B (arXiv 2411.00918): with its router of 6 rows, and without the head.
    expect(moe.total / 1e9).toBeCloseTo(1.75, 2);
  });
});
