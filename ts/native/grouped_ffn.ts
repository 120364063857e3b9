import type { Handle } from './tensors.ts';

/** What forward and backward have in common, in the order of native/binding/grouped_ffn.cpp; `activation` counts as in native/ops/grouped_ffn.h. */
export type GroupedFfnArguments = readonly [
  activation: number,
  gated: boolean,
  x: Handle,
  rows: Handle,
  offsets: Handle,
  inverse: Handle,
  weights: Handle,
  up: Handle,
  upBias: Handle | null,
  down: Handle,
  downBias: Handle | null,
];

type Optional = Handle | null;

/** x, choices, weights, mix, vectors, first, copies. */
export type CheapArguments = [
  x: Handle,
  choices: Handle,
  weights: Handle,
  mix: Optional,
  vectors: Optional,
  first: number,
  copies: number,
];

/** native/binding/grouped_ffn.cpp. */
export interface GroupedFfnNative {
  groupedFfn(...args: readonly [...GroupedFfnArguments, z: Optional, out: Handle]): void;
  groupedFfnBackward(
    ...args: readonly [
      ...GroupedFfnArguments,
      z: Optional,
      dOut: Handle,
      dx: Optional,
      dWeights: Optional,
      dUp: Optional,
      dUpBias: Optional,
      dDown: Optional,
      dDownBias: Optional,
      addUp: boolean,
      addUpBias: boolean,
      addDown: boolean,
      addDownBias: boolean,
    ]
  ): void;
  cheapExperts(...args: readonly [...CheapArguments, out: Handle]): void;
  cheapExpertsBackward(
    ...args: readonly [
      ...CheapArguments,
      dOut: Handle,
      dx: Handle,
      dWeights: Handle,
      dMix: Optional,
      dVectors: Optional,
    ]
  ): void;
}
