/** A number that names a tensor of the native engine; 0 is never one. */
export type Handle = number;

type HostArray = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint16Array | Uint8Array;

export interface NativeMemory {
  handles: number;
  storages: number;
  bytes: number;
  peakBytes: number;
  pooledBytes: number;
  waits: number;
}

/** Whether and why not CUDA can be used; versions are 1000 · major + 10 · minor, 0 where there is none. */
export interface NativeCuda {
  compiled: boolean;
  driver: number;
  runtime: number;
  why: string;
  devices: {
    name: string;
    major: number;
    minor: number;
    multiprocessors: number;
    memoryBytes: number;
    emulated: boolean;
  }[];
  /** Cards that cannot be used, by CUDA's own number, and why; the others can. */
  leftOut: { ordinal: number; name: string; why: string }[];
}

/** Handles, memory and host transfer (native/binding/tensors.cpp). */
export interface TensorsNative {
  empty(shape: readonly number[], dtype: number, deviceKind: number, deviceIndex: number): Handle;
  view(tensor: Handle, shape: readonly number[], elementOffset: number): Handle;
  release(tensor: Handle): void;
  /** As release, of a tensor that the collector found; lets V8 know how much memory is left. */
  collected(tensor: Handle): void;
  upload(tensor: Handle, data: HostArray): void;
  download(tensor: Handle, data: HostArray): void;
  downloadAll(tensors: readonly Handle[], data: readonly HostArray[]): void;
  copy(to: Handle, from: Handle): void;
  clear(tensor: Handle): void;
  memory(deviceKind: number, deviceIndex: number): NativeMemory;
  resetPeak(deviceKind: number, deviceIndex: number): void;
  trim(): void;
  synchronise(deviceKind: number, deviceIndex: number): void;
  /** The place that the compute stream has reached, as a number for {@link elapsed}. */
  mark(deviceKind: number, deviceIndex: number): number;
  /** Milliseconds of device time between two marks; waits for the second. */
  elapsed(from: number, to: number): number;
  dropMark(deviceKind: number, deviceIndex: number, mark: number): void;
  cudaStatus(): NativeCuda;
  cpuInfo(): { instructionSet: string; threads: number };
  setThreads(threads: number): void;
}
