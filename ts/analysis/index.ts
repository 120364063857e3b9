export {
  type LayerRouting,
  type LayerStep,
  normalisedEntropy,
  type RoutingStep,
  routingByLayer,
} from './routing.ts';
