import type { Handle } from './tensors.ts';

/** native/binding/attention.cpp; `window` 0 means unlimited. */
export interface AttentionNative {
  attention(
    q: Handle,
    k: Handle,
    v: Handle,
    sequenceOffsets: Handle,
    sinks: Handle | undefined,
    out: Handle,
    logSum: Handle | undefined,
    causal: boolean,
    window: number,
    scale: number,
  ): void;
  attentionBackward(
    q: Handle,
    k: Handle,
    v: Handle,
    sequenceOffsets: Handle,
    sinks: Handle | undefined,
    out: Handle,
    logSum: Handle,
    dOut: Handle,
    dq: Handle,
    dk: Handle,
    dv: Handle,
    dSinks: Handle | undefined,
    addSinks: boolean,
    causal: boolean,
    window: number,
    scale: number,
  ): void;
  attentionCached(
    q: Handle,
    keys: Handle,
    values: Handle,
    blockTable: Handle,
    queryOffsets: Handle,
    keyLengths: Handle,
    sinks: Handle | undefined,
    out: Handle,
    window: number,
    scale: number,
  ): void;
  cacheWrite(pool: Handle, rows: Handle, blockTable: Handle, queryOffsets: Handle, keyLengths: Handle): void;
  cacheCopyBlock(pool: Handle, from: number, to: number): void;
}
