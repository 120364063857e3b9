import { fail, native } from '../native/index.ts';
import { type DeviceName, parseDevice } from './dtype.ts';
import { currentPlace, inPlace } from './lifetime.ts';

/** Where tensors are made when no device is named; 'cpu' until {@link setDefaultDevice}. */
export const defaultDevice = (): DeviceName => currentPlace().device;

/** @throws ERR_LIBMOE_DEVICE for a device that this process does not have, saying why */
function checkDevice(name: DeviceName): void {
  const { kind, index } = parseDevice(name);
  if (kind === 1) {
    const { why, devices, leftOut } = native().cudaStatus();
    if (why) fail('ERR_LIBMOE_DEVICE', `${name} cannot be used: ${why}`);
    if (index >= devices.length)
      fail(
        'ERR_LIBMOE_DEVICE',
        `there is no ${name}, this process sees ${devices.length} CUDA device(s); CUDA_VISIBLE_DEVICES limits them${leftOut.map((card) => `; left out is ${card.name} (CUDA device ${card.ordinal}): ${card.why}`).join('')}`,
      );
  }
}

/**
 * Makes `name` the place of all tensors made without naming one, as `libmoe train --device` does; inside {@link onDevice}, until that ends.
 * @throws ERR_LIBMOE_DEVICE for a device that this process does not have, saying why
 */
export function setDefaultDevice(name: DeviceName): void {
  checkDevice(name);
  currentPlace().device = name;
}

/**
 * Runs `body` with another default device. What runs meanwhile, another `onDevice` too, keeps its own.
 * @throws ERR_LIBMOE_DEVICE for a device that this process does not have, saying why
 */
export async function onDevice<T>(name: DeviceName, body: () => Promise<T>): Promise<T> {
  checkDevice(name);
  return inPlace({ device: name }, body);
}
