export {
  type UpcycleOptions,
  type UpcycleReport,
  upcycle,
  upcycledConfig,
  upcycleOptionsSchema,
  upcycleWithReport,
} from './upcycle.ts';
