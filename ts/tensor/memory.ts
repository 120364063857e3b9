import { native } from '../native/index.ts';
import { defaultDevice } from './default-device.ts';
import { type DeviceName, parseDevice } from './dtype.ts';

/** What the tensors of a device take up, and how often it was waited for. */
export interface Memory {
  /** Live tensors of this thread, views and those the tape holds included. */
  tensors: number;
  /** Bytes of live storage, and the most there has been since {@link resetPeakMemory}. */
  bytes: number;
  peakBytes: number;
  /** Freed blocks kept for reuse. */
  pooledBytes: number;
  /**
   * How often the host has waited for the device since it was first used: reads, {@link synchronise}, and allocations that found no memory left.
   * Always 0 on the CPU, which works inside each call.
   */
  waits: number;
}

/** What the engine holds on a device (default: {@link defaultDevice}). */
export function memory(device: DeviceName = defaultDevice()): Memory {
  const { kind, index } = parseDevice(device);
  const m = native().memory(kind, index);
  const { handles: tensors, bytes, peakBytes, pooledBytes, waits } = m;
  return { tensors, bytes, peakBytes, pooledBytes, waits };
}

/** Begins {@link Memory.peakBytes} anew from what is live now. */
export function resetPeakMemory(device: DeviceName = defaultDevice()): void {
  const { kind, index } = parseDevice(device);
  native().resetPeak(kind, index);
}

/** Gives freed blocks back to the operating system. */
export const trimMemory = (): void => native().trim();

/** The devices that tensors can live on in this process: the CPU, then the CUDA devices that can be used. */
export const devices = (): DeviceName[] => [
  'cpu',
  ...native()
    .cudaStatus()
    .devices.map((_, index): DeviceName => `cuda:${index}`),
];

/**
 * Waits until a device (default: {@link defaultDevice}) has done everything that was asked of it.
 * @throws what an operation met on the device since: ERR_LIBMOE_ARGUMENT, ERR_LIBMOE_NOT_FINITE, ERR_LIBMOE_CUDA
 */
export function synchronise(device: DeviceName = defaultDevice()): void {
  const { kind, index } = parseDevice(device);
  native().synchronise(kind, index);
}

/** Threads that one CPU operation uses, the caller's included; results do not depend on it. */
export const threads = (): number => native().cpuInfo().threads;
/** Sets how many threads an operation may use, the calling one included; results do not depend on it. */
export const setThreads = (count: number): void => native().setThreads(count);
