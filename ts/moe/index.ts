export { checkpointed } from './checkpointed.ts';
export { type Coefficient, type CoefficientSchedule, coefficientSchema } from './coefficient.ts';
export type { AuxiliaryLoss, RoutingLoss, Statistics, SumOverRanks } from './collection.ts';
export { ForwardContext, type ForwardOptions, type RoutingContext } from './context.ts';
export { capacityOf } from './dispatch/capacity.ts';
export { type DispatchSettings, dispatchLocally } from './dispatch/local.ts';
export { diversityLoss } from './diversity.ts';
export {
  type ExpertInit,
  type ExpertModule,
  type ExpertOptions,
  type ExpertSet,
  Experts,
  libmoeStd,
  ModuleExperts,
} from './experts.ts';
export { MoeLayer, type MoeLayerOptions } from './layer.ts';
export {
  type BalanceMode,
  type BalanceOptions,
  balanceLoss,
  balanceModes,
  batchBalanceLoss,
  type GateLossOptions,
  type GateStatistics,
  gateLosses,
  meanEntropyLoss,
  routerZLoss,
  tokenEntropyLoss,
} from './losses.ts';
export { mergeSummaries, RoutingRecord, type RoutingSummary, type RoutingTrace } from './record.ts';
export {
  createRouter,
  type RouterDefinition,
  type RouterPlace,
  registerRouter,
  routerDefinition,
  routerNames,
  type TokenCost,
  tokenCost,
  unregisterRouter,
} from './registry.ts';
export { type Compat, compatibilities, Router, requireTokens, type StepChoices } from './router.ts';
export {
  initialiserOf,
  type MatrixInit,
  matrixInitSchema,
  type RouterInit,
} from './routers/first-values.ts';
export { TopKRouter } from './routers/top-k.ts';
export { ruleOf, type TopKOptions, type TopKRule, topKOptions } from './routers/top-k-rule.ts';
export {
  type AnyRouting,
  type AssignmentRouting,
  type Routing,
  type RoutingStatistics,
  withSlots,
} from './routing.ts';
