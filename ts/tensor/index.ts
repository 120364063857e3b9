export {
  type Backward,
  detach,
  type GradSink,
  type OpRecord,
  parameter,
  record,
} from './autograd.ts';
export { checkpoint } from './checkpoint.ts';
export { defaultDevice, onDevice, setDefaultDevice } from './default-device.ts';
export {
  bytesPerElement,
  type DeviceName,
  type Dtype,
  gradientDtype,
  type HostArray,
  isFloat,
} from './dtype.ts';
export type { NestedNumbers } from './host-data.ts';
export { enableGrad, isGradEnabled, keep, noGrad, scope } from './lifetime.ts';
export {
  devices,
  type Memory,
  memory,
  resetPeakMemory,
  setThreads,
  synchronise,
  threads,
  trimMemory,
} from './memory.ts';
export {
  elements,
  empty,
  emptyLike,
  full,
  ones,
  Tensor,
  type TensorOptions,
  tensor,
  view,
  zeros,
} from './tensor.ts';
