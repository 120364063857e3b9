import { describe, expect, it } from 'vitest';
import { type ScheduleOptions, schedule } from '../../ts/training/schedule.ts';

describe('schedule', () => {
  it('cosine falls from the end of the warm-up to the end of training', () => {
    const rate = schedule({ name: 'cosine', learningRate: 1, warmupSteps: 10, minimumRatio: 0.2 }, 110);
    expect([0, 4, 9].map(rate)).toEqual([0.1, 0.5, 1]);
    expect(rate(10)).toBe(1);
    expect(rate(60)).toBeCloseTo(0.6, 12);
    expect(rate(110)).toBeCloseTo(0.2, 12);
    expect(rate(500)).toBeCloseTo(0.2, 12);
  });

  it('cosine of LibMoE has the whole training as its half period', () => {
    const [peak, warmup, total] = [2.5e-4, 4000, 100_000];
    const rate = schedule(
      { name: 'cosine', learningRate: peak, warmupSteps: warmup, compat: 'libmoe' },
      total,
    );
    const low = 0.1 * peak;
    const formula = (i: number) =>
      low + ((peak - low) * (1 + Math.cos((Math.PI * (i - warmup)) / total))) / 2;
    for (const i of [4000, 4001, 50_000, 99_999]) expect(rate(i)).toBe(formula(i));
    expect(rate(3999)).toBe(peak);
    expect(rate(0)).toBe(peak / warmup);
    expect(rate(99_999)).toBeGreaterThan(low);
  });

  it('linear, constant, noam, step', () => {
    const linear = schedule({ name: 'linear', learningRate: 1, warmupSteps: 2, minimumRatio: 0.5 }, 12);
    expect([0, 1, 2, 7, 12, 20].map(linear)).toEqual([0.5, 1, 1, 0.75, 0.5, 0.5]);
    const constant = schedule({ name: 'constant', learningRate: 3, warmupSteps: 3 }, 5);
    expect([0, 1, 2, 3, 99].map(constant)).toEqual([1, 2, 3, 3, 3]);
    const noam = schedule({ name: 'noam', learningRate: 8, warmupSteps: 4 }, 5);
    expect([0, 3, 15, 63].map(noam)).toEqual([2, 8, 4, 2]);
    const step = schedule({ name: 'step', learningRate: 1, at: [2, 4], factor: 0.5 }, 10);
    expect([0, 1, 2, 3, 4, 9].map(step)).toEqual([1, 1, 0.5, 0.5, 0.25, 0.25]);
  });

  it('stands a warm-up as long as the training', () => {
    const rate = schedule({ name: 'cosine', learningRate: 1, warmupSteps: 5 }, 5);
    expect(rate(4)).toBe(1);
    expect(rate(5)).toBe(1);
    expect(rate(6)).toBeCloseTo(0.1, 12);
  });

  it.each([
    [{ name: 'cosinus', learningRate: 1 }, 10, 'ERR_LIBMOE_CONFIG'],
    [{ name: 'cosine', learningRate: -1 }, 10, 'learningRate'],
    [{ name: 'cosine', learningRate: 1, warmup: 3 }, 10, 'warmup'],
    [{ name: 'linear', learningRate: 1, minimumRatio: 2 }, 10, 'minimumRatio'],
    [{ name: 'noam', learningRate: 1 }, 10, 'warmupSteps'],
    [{ name: 'constant', learningRate: 1 }, 0, 'positive number of steps'],
  ])('refuses %j', (options, steps, message) => {
    expect(() => schedule(options as ScheduleOptions, steps)).toThrow(message);
  });

  it('refuses steps that do not exist', () => {
    const rate = schedule({ name: 'constant', learningRate: 1 }, 10);
    expect(() => rate(-1)).toThrow('ERR_LIBMOE_ARGUMENT');
    expect(() => rate(0.5)).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});
