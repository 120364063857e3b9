import {
  type Initialiser,
  initialise,
  normal,
  onesInitialiser,
  truncatedNormal,
  uniformWithin,
  zerosInitialiser,
} from '../../nn/initialisers.ts';
import type { Tensor } from '../../tensor/index.ts';
import { routerBufferRule, routerRule } from '../language/initial-values.ts';
import type { VisionTower } from './tower.ts';

/** Draws every parameter of a tower from (seed, path) as the models of its kind start in Hugging Face's transformers; experts as the dense layer. */
export function drawTowerValues(tower: VisionTower, seed: number): void {
  const rule = tower.config.kind === 'clip' ? clipRule : siglipRule;
  initialise(tower, seed, (path, value) => {
    if (/(^|\.)\w*[nN]orm\.weight$/.test(path)) return onesInitialiser;
    // LibMoE's standard deviation of routers.
    if (path.includes('.moe.router.')) return routerRule(tower, path, { std: 0.02 });
    return rule(tower, path, value);
  });
  for (const [name, buffer] of tower.namedBuffers()) routerBufferRule(tower, name)?.(buffer, { seed, name });
}

const isBias = (path: string): boolean => /(\.bias|Bias)$/.test(path);
const isUp = (path: string): boolean => /\.up$/.test(path);
const isDown = (path: string): boolean => /\.down$/.test(path);

function clipRule({ config }: VisionTower, path: string): Initialiser {
  const { dModel, layers } = config;
  const ofWidth = dModel ** -0.5;
  const ofDepth = ofWidth * (2 * layers) ** -0.5;
  if (isBias(path)) return zerosInitialiser;
  if (path === 'classEmbedding') return normal(ofWidth);
  if (/\.attention\.(query|key|value)\.weight$/.test(path)) return normal(ofDepth);
  if (path.endsWith('.attention.output.weight')) return normal(ofWidth);
  if (isUp(path)) return normal((2 * dModel) ** -0.5);
  if (isDown(path)) return normal(ofDepth);
  return normal(0.02);
}

function siglipRule({ config }: VisionTower, path: string, value: Tensor): Initialiser {
  const { dModel } = config;
  const [outputs = 1, inputs = 1] = value.shape.slice(-2);
  if (/\.(feedForward|experts|shared)\.(upBias|downBias)$/.test(path)) return normal(1e-6);
  if (isBias(path)) return zerosInitialiser;
  if (path === 'positionEmbedding.weight') return normal(dModel ** -0.5);
  // PyTorch takes the query, key and value of its attention for one matrix.
  if (/^head\.(query|key|value)\.weight$/.test(path)) return xavier(dModel, 3 * dModel);
  if (path === 'head.probe') return xavier(dModel, dModel);
  if (path === 'patchEmbedding.weight' || path === 'head.output.weight') return lecun(inputs);
  return xavier(inputs, outputs);
}

/** U(±√(6 / (fan in + fan out))) (Glorot & Bengio 2010). */
const xavier = (inputs: number, outputs: number): Initialiser =>
  uniformWithin(Math.sqrt(6 / (inputs + outputs)));

/** Normal, cut at two standard deviations, of variance 1 / fan in after the cut. */
const lecun = (inputs: number): Initialiser => truncatedNormal(inputs ** -0.5 / 0.87962566103423978, 2);
