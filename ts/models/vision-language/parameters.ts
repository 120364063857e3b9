import type { MoeConfig } from '../language/config.ts';
import { moeSize, routerOf, withDiversity } from '../language/parameters.ts';
import type { ProjectorPlace } from './projector.ts';
import {
  linearLayersOf,
  type ProjectorConfig,
  type ProjectorOptions,
  resolveProjectorConfig,
} from './projector-config.ts';

/** Sizes of a projector, computed from its configuration without making it. */
export interface ProjectorParameterReport {
  total: number;
  /** Parameters that one row uses: all but the experts that it is not sent to. */
  active: number;
  /** Of the total: routed experts. */
  routedExperts: number;
  /** Rows of input of the language model that an image gives. */
  tokensPerImage: number;
  /** Floating-point operations of a forward pass in training per image; with a backward pass to weights and features three times as many. */
  flopsPerImage: number;
}

/** Width of the rows that a projector takes, after pixel-shuffle. */
export const projectorWidth = (
  { featureWidth }: Pick<ProjectorPlace, 'featureWidth'>,
  { pixelShuffle }: Pick<ProjectorConfig, 'pixelShuffle'>,
): number => featureWidth * pixelShuffle ** 2;

/** The mixture of a projector in the form that layers of other models have; its experts give rows of `dModel` numbers. */
export function projectorMoeOf(config: ProjectorConfig, dModel: number): MoeConfig | undefined {
  const { activation, bias, moe } = config;
  if (!moe) return undefined;
  const { shared, ...rest } = moe;
  const expert = { hidden: dModel, activation, gated: false, bias };
  return { ...rest, layers: 'all', expert, ...(shared && { shared: { hidden: dModel } }) };
}

/** Counts parameters and operations. @throws ERR_LIBMOE_CONFIG */
export function projectorParameterReport(
  place: ProjectorPlace,
  options: ProjectorOptions = {},
): ProjectorParameterReport {
  const config = resolveProjectorConfig(options);
  const { dModel } = place;
  const width = projectorWidth(place, config);
  const tokensPerImage = place.tokensPerImage / config.pixelShuffle ** 2;
  const biases = config.bias ? dModel : 0;
  const moe = projectorMoeOf(config, dModel);
  if (!moe) {
    const layers = linearLayersOf(config);
    const weights = layers === 0 ? 0 : (width + (layers - 1) * dModel) * dModel;
    const total = weights + layers * biases;
    return {
      total,
      active: total,
      routedExperts: 0,
      tokensPerImage,
      flopsPerImage: 2 * tokensPerImage * weights,
    };
  }
  const weights = (width + dModel) * dModel;
  const each = weights + 2 * biases;
  const router = routerOf({ dModel: width, layers: 1, moe }, 0);
  const { experts } = moeSize({ dModel: width, moe });
  const shared = moe.shared ? 1 : 0;
  const everywhere = router.parameters + shared * each;
  const again = withDiversity(moe) ? moe.topK : 0;
  const perRow = (router.trainingExperts + shared + again) * weights + router.flops / 2;
  return {
    total: everywhere + experts * each,
    active: Math.round(everywhere + router.experts * each),
    routedExperts: experts * each,
    tokensPerImage,
    flopsPerImage: 2 * tokensPerImage * perRow,
  };
}
