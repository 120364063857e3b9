import type { Handle } from './tensors.ts';

/** logits, bias, mask, sequenceOffsets, topK, score, rule, epsilon, probability, groups, keptGroups, groupTop, given; enums of native/ops/gating.h. */
export type GatingArguments = [
  logits: Handle,
  bias: Handle | undefined,
  mask: Handle | undefined,
  sequenceOffsets: Handle | undefined,
  topK: number,
  score: number,
  rule: number,
  epsilon: number,
  probability: number,
  groups: number,
  keptGroups: number,
  groupTop: number,
  given: boolean,
];

/** scores, noise, mask, floor, k. */
export type NoisyArguments = [
  scores: Handle,
  noise: Handle,
  mask: Handle | undefined,
  floor: number,
  k: number,
];

/** native/binding/gating.cpp. */
export interface GatingNative {
  gateForward(
    ...args: [
      ...GatingArguments,
      experts: Handle,
      weights: Handle,
      logSumExp: Handle,
      probabilitySums: Handle,
      counts: Handle,
      firstCounts: Handle,
      summary: Handle,
      probabilities: Handle | undefined,
      entropy: Handle | undefined,
    ]
  ): void;
  gateBackward(
    ...args: [
      ...GatingArguments,
      experts: Handle,
      weights: Handle,
      dWeights: Handle | undefined,
      dLogSumExp: Handle | undefined,
      dProbabilitySums: Handle | undefined,
      dProbabilities: Handle | undefined,
      dEntropy: Handle | undefined,
      dlogits: Handle,
    ]
  ): void;
  noisyForward(...args: [...NoisyArguments, logits: Handle, load: Handle, rivals: Handle]): void;
  noisyBackward(
    ...args: [
      ...NoisyArguments,
      logits: Handle,
      rivals: Handle,
      dLogits: Handle | undefined,
      dLoad: Handle | undefined,
      dScores: Handle,
    ]
  ): void;
  expertLists(
    scores: Handle,
    mask: Handle | undefined,
    each: Handle | undefined,
    experts: Handle,
    most: Handle,
  ): void;
  take(values: Handle, experts: Handle, out: Handle): void;
  takeBackward(experts: Handle, dOut: Handle, dValues: Handle): void;
}
