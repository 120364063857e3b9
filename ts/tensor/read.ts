import { type Handle, native } from '../native/index.ts';
import type { HostArray } from './dtype.ts';

interface Reading {
  handle: Handle;
  data: HostArray;
  done: (data: HostArray) => void;
  failed: (error: unknown) => void;
  release: () => void;
}

// What was asked for in this turn, by device: one wait serves all of it.
const wanted = new Map<string, Reading[]>();

/** Reads a tensor into `data` together with all others of its device that are asked for before the caller awaits. */
export function readLater(
  tensor: { handle: Handle; device: string; retain(): unknown; release(): void },
  data: HostArray,
): Promise<HostArray> {
  return new Promise((done, failed) => {
    const reading = { handle: tensor.handle, data, done, failed, release: () => tensor.release() };
    tensor.retain();
    const list = wanted.get(tensor.device);
    if (list) list.push(reading);
    else {
      wanted.set(tensor.device, [reading]);
      queueMicrotask(() => readAll(tensor.device));
    }
  });
}

function readAll(device: string): void {
  const list = wanted.get(device) ?? [];
  wanted.delete(device);
  try {
    native().downloadAll(
      list.map(({ handle }) => handle),
      list.map(({ data }) => data),
    );
    for (const { done, data } of list) done(data);
  } catch (error) {
    for (const { failed } of list) failed(error);
  } finally {
    for (const { release } of list) release();
  }
}
