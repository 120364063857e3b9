import { feedForwardSize, moeSize, routerOf, sumOf, withDiversity } from '../language/parameters.ts';
import {
  depthOf,
  gridOf,
  resolveVisionTowerConfig,
  type VisionTowerOptions,
  visionMoeLayersOf,
} from './config.ts';

/** Sizes of a tower, computed from its configuration without making it. */
export interface TowerParameterReport {
  total: number;
  /** Parameters that one patch uses: all but the experts that it is not sent to. */
  active: number;
  /** Of the total: routed experts, in all layers. */
  routedExperts: number;
  /** Rows that go through the layers per image, those of all tiles of all scales and their class tokens. */
  tokensPerImage: number;
  /**
   * Floating-point operations of a forward pass in training per image: 2 · weights of matrix products per row, and 4 · rows · dModel of attention per
   * row and layer. A tower that learns takes three times as many with its backward pass. Enlarging images is not counted.
   */
  flopsPerImage: number;
}

/** Counts parameters and operations. @throws ERR_LIBMOE_CONFIG */
export function towerParameterReport(options: VisionTowerOptions): TowerParameterReport {
  const config = resolveVisionTowerConfig(options);
  const { kind, dModel, patchSize, hidden, activation, pool, scales } = config;
  const classToken = kind === 'clip' ? 1 : 0;
  const norm = 2 * dModel;
  const dense = feedForwardSize(dModel, { hidden, activation, gated: false, bias: true });
  const attention = { weights: 4 * dModel * dModel, biases: 4 * dModel };
  const patches = 3 * patchSize * patchSize * dModel;
  const positions = (gridOf(config, config.imageSize) ** 2 + classToken) * dModel;
  const outside = patches + positions + (classToken ? dModel + norm : dModel);
  const head = dModel + attention.weights + attention.biases + norm + dense.weights + dense.biases;
  const pooling = (pool ? norm : 0) + (pool === 'attention' ? head : 0);
  const depth = depthOf(config);
  const moe = moeSize(config);
  const routers = visionMoeLayersOf(config).map((layer) => routerOf(config, layer));
  const denseLayers = depth - routers.length;
  const perExpert = moe.expert.weights + moe.expert.biases;
  const routedExperts = routers.length * moe.experts * perExpert;
  const everywhere =
    outside +
    pooling +
    depth * (2 * norm + attention.weights + attention.biases) +
    denseLayers * (dense.weights + dense.biases) +
    routers.length * (moe.others + moe.otherBiases) +
    sumOf(routers, ({ parameters }) => parameters);

  const rows = gridOf(config, config.resolution) ** 2;
  const images = sumOf(scales, (scale) => scale * scale);
  const tokens = rows + classToken;
  const diversity = withDiversity(config.moe) ? config.moe!.topK * moe.expert.weights : 0;
  const perToken =
    depth * (attention.weights + 2 * tokens * dModel) +
    denseLayers * dense.weights +
    sumOf(
      routers,
      ({ trainingExperts, flops }) =>
        moe.others + diversity + trainingExperts * moe.expert.weights + flops / 2,
    );
  return {
    total: everywhere + routedExperts,
    active: Math.round(everywhere + sumOf(routers, ({ experts }) => experts) * perExpert),
    routedExperts,
    tokensPerImage: images * tokens,
    flopsPerImage: 2 * images * (tokens * perToken + rows * patches),
  };
}
