import { type DeviceName, parseDevice } from './dtype.ts';

let device: DeviceName = 'cpu';

/** Where tensors are made when no device is named; 'cpu' until {@link setDefaultDevice}. */
export const defaultDevice = (): DeviceName => device;

/**
 * Makes `name` the place of all tensors made without naming one, as `libmoe train --device` does.
 * @throws ERR_LIBMOE_DEVICE for a name that is no device's
 */
export function setDefaultDevice(name: DeviceName): void {
  parseDevice(name);
  device = name;
}
