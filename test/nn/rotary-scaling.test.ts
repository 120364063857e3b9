import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Fields } from '../../ts/models/language/architectures/fields.ts';
import { readRotary } from '../../ts/models/language/architectures/rotary-fields.ts';
import { Rotary, rotaryFrequencies, rotaryScalingSchema } from '../../ts/nn/index.ts';
import type { JsonObject } from '../../ts/storage/json.ts';
import { noGrad, scope, tensor } from '../../ts/tensor/index.ts';

interface Case {
  parameters: JsonObject;
  frequencies: number[];
  longFrequencies: number[];
  attentionFactor: number;
}
// Computed by transformers: test/golden/language/make.py
const golden = JSON.parse(
  readFileSync(new URL('../golden/language/rotary.json', import.meta.url), 'utf8'),
) as Record<string, Case>;

describe('rotary scaling', () => {
  it.each(Object.keys(golden))('%s: frequencies and attention factor of transformers', (name) => {
    const { parameters, frequencies, longFrequencies, attentionFactor } = golden[name]!;
    const fields = new Fields({ max_position_embeddings: 64, rope_parameters: parameters }, 'config.json');
    const { base, scaling } = readRotary(fields, 8, { base: 1, maxPositions: 64 });
    const ours = rotaryFrequencies(8, base!, rotaryScalingSchema.parse(scaling));
    const close = (got: readonly number[], wanted: readonly number[]): void => {
      expect(got).toHaveLength(4);
      got.forEach((value, pair) => {
        expect(Math.abs(value / wanted[pair]! - 1)).toBeLessThan(1e-6);
      });
    };
    close(ours.frequencies, frequencies);
    close(ours.longFrequencies ?? ours.frequencies, longFrequencies);
    expect(ours.attentionFactor).toBeCloseTo(attentionFactor, 12);
  });

  it('turns a long sequence otherwise than a short one beside it', () => {
    const rotary = new Rotary({
      dims: 2,
      base: 100,
      scaling: {
        kind: 'longrope',
        factor: 1,
        originalPositions: 2,
        shortFactors: [1],
        longFactors: [4],
        attentionFactor: 0.5,
      },
    });
    const offsets = Int32Array.from([0, 2, 5]);
    const rows = rotary.rows(Int32Array.from([0, 1, 0, 1, 2]), offsets);
    expect([...rows]).toEqual([0, 2, 1, 3, 5]);
    noGrad(() =>
      scope(() => {
        const x = tensor(Array(5).fill([1, 0]).flat(), [5, 1, 2]);
        rotary.reserve(3, x);
        const turned = rotary.apply(x, tensor(rows, undefined, { dtype: 'i32' })).toArray();
        const angles = [0, 1, 0, 0.25, 0.5];
        turned.forEach((value, i) => {
          const angle = angles[i >> 1]!;
          expect(value).toBeCloseTo(0.5 * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle)), 6);
        });
      }),
    );
    rotary.dispose();
  });

  it('refuses lists of another length, factors in the wrong order and unknown keys', () => {
    const longrope = {
      kind: 'longrope' as const,
      factor: 2,
      originalPositions: 16,
      shortFactors: [1],
      longFactors: [1],
    };
    expect(() => rotaryFrequencies(4, 100, longrope)).toThrow(
      /ERR_LIBMOE_ARGUMENT.*one factor for each of 2 pairs, got 1/,
    );
    const llama3 = { kind: 'llama3', factor: 2, originalPositions: 16 } as const;
    expect(() =>
      rotaryFrequencies(4, 100, { ...llama3, lowFrequencyFactor: 5, highFrequencyFactor: 4 }),
    ).toThrow(/ERR_LIBMOE_ARGUMENT.*lowFrequencyFactor 5 must not be more than 4/);
    expect(rotaryScalingSchema.safeParse({ kind: 'dynamic', factor: 2 }).success).toBe(false);
    expect(rotaryScalingSchema.safeParse({ kind: 'linear', factor: 2, faktor: 3 }).success).toBe(false);
  });
});
