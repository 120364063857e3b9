export { type LaunchEnvironment, launchEnvironment } from './environment.ts';
