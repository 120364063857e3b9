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
}
