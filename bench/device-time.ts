import { native } from '../ts/native/index.ts';
import { parseDevice } from '../ts/tensor/dtype.ts';
import { type DeviceName, setDefaultDevice } from '../ts/tensor/index.ts';

/** The GPU that cases run on, for the result file. */
export interface DeviceFacts {
  name: string;
  computeCapability: string;
  multiprocessors: number;
  memoryBytes: number;
  /** The emulated device of the tests: its times mean nothing. */
  emulated: boolean;
  driver: number;
  runtime: number;
}

/** Makes `device` the place of all inputs; undefined: the CPU. */
export function useDevice(device: DeviceName): DeviceFacts | undefined {
  setDefaultDevice(device);
  const { kind, index } = parseDevice(device);
  if (kind === 0) return undefined;
  native().synchronise(kind, index); // says so when there is no such device
  const { devices, driver, runtime } = native().cudaStatus();
  const { name, major, minor, multiprocessors, memoryBytes, emulated } = devices[index]!;
  return {
    name,
    computeCapability: `${major}.${minor}`,
    multiprocessors,
    memoryBytes,
    emulated,
    driver,
    runtime,
  };
}

/** Milliseconds that the device took for `calls` calls, from events in its stream. */
function deviceMilliseconds(run: () => void, calls: number, device: DeviceName): number {
  const { kind, index } = parseDevice(device);
  const engine = native();
  const from = engine.mark(kind, index);
  for (let i = 0; i < calls; i += 1) run();
  const to = engine.mark(kind, index);
  try {
    return engine.elapsed(from, to);
  } finally {
    engine.dropMark(kind, index, from);
    engine.dropMark(kind, index, to);
  }
}

/**
 * One sample: seconds of device time per call, averaged over as many calls as fill about 50 ms. The calls follow one another, so that what they share lies in
 * the L2 cache as in a training step (warm), and a device that waits for the host is seen to wait.
 */
export function deviceSample(run: () => void, device: DeviceName): { seconds: number; calls: number } {
  const once = deviceMilliseconds(run, 1, device);
  const calls = Math.min(500, Math.max(1, Math.ceil(50 / Math.max(once, 1e-3))));
  return { seconds: deviceMilliseconds(run, calls, device) / calls / 1e3, calls };
}
