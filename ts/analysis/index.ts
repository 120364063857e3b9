export { type CategoryChoices, type CategoryLoad, loadByCategory } from './category-routing.ts';
export {
  type LayerRouting,
  type LayerStep,
  normalisedEntropy,
  type RoutingStep,
  routingByLayer,
} from './routing.ts';
