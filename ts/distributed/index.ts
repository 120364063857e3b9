export { type LaunchEnvironment, launchEnvironment } from './environment.ts';
export { initProcessGroup } from './init.ts';
export type { ProcessGroup, ProcessGroupOptions, Work } from './process-group.ts';
