import { fail, native } from '../native/index.ts';
import { type DeviceName, parseDevice } from './dtype.ts';

let device: DeviceName = 'cpu';

/** Where tensors are made when no device is named; 'cpu' until {@link setDefaultDevice}. */
export const defaultDevice = (): DeviceName => device;

/**
 * Makes `name` the place of all tensors made without naming one, as `libmoe train --device` does.
 * @throws ERR_LIBMOE_DEVICE for a device that this process does not have, saying why
 */
export function setDefaultDevice(name: DeviceName): void {
  const { kind, index } = parseDevice(name);
  if (kind === 1) {
    const { why, devices } = native().cudaStatus();
    if (why) fail('ERR_LIBMOE_DEVICE', `${name} cannot be used: ${why}`);
    if (index >= devices.length)
      fail(
        'ERR_LIBMOE_DEVICE',
        `there is no ${name}, this process sees ${devices.length} CUDA device(s); CUDA_VISIBLE_DEVICES limits them`,
      );
  }
  device = name;
}

/** Runs `body` with another default device. */
export async function onDevice<T>(name: DeviceName, body: () => Promise<T>): Promise<T> {
  const before = device;
  setDefaultDevice(name);
  try {
    return await body();
  } finally {
    device = before;
  }
}
