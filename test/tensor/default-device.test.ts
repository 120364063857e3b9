import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  type DeviceName,
  defaultDevice,
  enableGrad,
  noGrad,
  onDevice,
  scope,
  setDefaultDevice,
  zeros,
} from '../../ts/tensor/index.ts';

const device = defaultDevice();
if (device === 'cpu') console.log('default-device: left out, one needs a second device for it');

describe.skipIf(device === 'cpu')('the default device', () => {
  /** Where tensors are made over several turns of the event loop. */
  const places = (pause: number) => async () => {
    const seen: DeviceName[] = [];
    for (let i = 0; i < 6; i += 1) {
      await sleep(pause);
      seen.push(
        scope(() => zeros([1]).device),
        noGrad(() => enableGrad(() => defaultDevice())),
      );
    }
    return seen;
  };

  it('belongs to each of two calls that interleave, and to neither when they have ended', async () => {
    const [there, here] = await Promise.all([onDevice(device, places(1)), onDevice('cpu', places(2))]);
    expect(there).toEqual(Array(12).fill(device));
    expect(here).toEqual(Array(12).fill('cpu'));
    expect(defaultDevice()).toBe(device);
    await expect(onDevice('cpu', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(defaultDevice()).toBe(device);
  });

  it('set inside a call ends with the call', async () => {
    await onDevice('cpu', async () => {
      setDefaultDevice(device);
      await sleep(1);
      expect(defaultDevice()).toBe(device);
      await onDevice('cpu', async () => expect(defaultDevice()).toBe('cpu'));
      expect(defaultDevice()).toBe(device);
      setDefaultDevice('cpu');
    });
    expect(defaultDevice()).toBe(device);
  });

  it('is refused where the process does not have it', async () => {
    await expect(onDevice('cuda:15', async () => 1)).rejects.toThrow(/ERR_LIBMOE_DEVICE|there is no cuda:15/);
    expect(() => setDefaultDevice('cuda:15')).toThrow(/there is no cuda:15, this process sees 1/);
    expect(defaultDevice()).toBe(device);
  });
});
