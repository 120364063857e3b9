import { fail } from '../../native/index.ts';
import { shortList } from '../../nn/module.ts';
import type { Safetensors } from '../../storage/safetensors.ts';
import { type Dtype, noGrad, scope, type Tensor, view } from '../../tensor/index.ts';
import { cat, slice, transpose } from '../../tensor/shape.ts';
import type { Architecture, FileTensor } from './architectures/index.ts';
import type { LanguageModelConfig } from './config.ts';

/** A file tensor, or rows of it, and where in a parameter it lies. */
interface Place extends FileTensor {
  target: Tensor;
  offset: number;
  /** Of the part within the parameter. */
  partShape: readonly number[];
}

/** All parts of each file tensor, by its name. */
function placesOf(
  architecture: Architecture,
  config: LanguageModelConfig,
  state: Iterable<readonly [string, Tensor]>,
): Map<string, Place[]> {
  const places = new Map<string, Place[]>();
  for (const [name, target] of state) {
    let offset = 0;
    for (const part of architecture.fileTensors(name, target.shape, config)) {
      const whole = part.transposed ? [...part.shape].reverse() : part.shape;
      const partShape = part.rows ? [part.rows[1] - part.rows[0], ...whole.slice(1)] : whole;
      const place = { ...part, target, offset, partShape };
      places.set(part.name, [...(places.get(part.name) ?? []), place]);
      offset += partShape.reduce((a, b) => a * b, 1);
    }
  }
  return places;
}

/** What weights may be stored as. */
const floats: ReadonlySet<Dtype | undefined> = new Set<Dtype>(['f32', 'bf16', 'f16', 'f64']);

/** What a family's files call the tensors: name in ours to name in these files. */
function spelling(architecture: Architecture, files: Safetensors): (name: string) => string {
  const { basePrefix } = architecture;
  const bare = basePrefix !== undefined && files.names().every((name) => !name.startsWith(basePrefix));
  return (name) => (bare && name.startsWith(basePrefix) ? name.slice(basePrefix.length) : name);
}

/**
 * Fills parameters with what a family's files hold of them. Names and shapes are all checked before a value is read.
 * @throws ERR_LIBMOE_CHECKPOINT naming missing, unexpected and mis-shaped tensors
 */
export function readFileTensors(
  architecture: Architecture,
  config: LanguageModelConfig,
  state: Iterable<readonly [string, Tensor]>,
  files: Safetensors,
  path: string,
): void {
  const spelled = spelling(architecture, files);
  const places = new Map(
    [...placesOf(architecture, config, state)].map(([name, parts]) => [spelled(name), parts]),
  );
  const tied = (name: string): boolean => config.tieEmbeddings && name === 'lm_head.weight';
  const missing = [...places.keys()].filter((name) => !files.has(name));
  const unexpected = files
    .names()
    .filter((name) => !places.has(name) && !architecture.ignorable(name, config) && !tied(name));
  const misshaped = [...places]
    .filter(([name, [part]]) => files.has(name) && files.entry(name).shape.join() !== part!.shape.join())
    .map(
      ([name, [part]]) =>
        `${name} (expected [${part!.shape.join(', ')}], got [${files.entry(name).shape.join(', ')}])`,
    );
  const untyped = [...places.keys()]
    .filter((name) => files.has(name) && !floats.has(files.entry(name).dtype))
    .map((name) => `${name} (${files.entry(name).formatDtype})`);
  const problems = [
    ['missing', missing],
    ['unexpected', unexpected],
    ['wrong shape', misshaped],
    ['not of floats', untyped],
  ].flatMap(([what, names]) => (names!.length > 0 ? [`${what}: ${shortList(names as string[])}`] : []));
  if (problems.length > 0) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${path} does not hold the model that its config.json describes; ${problems.join('; ')}`,
    );
  }
  noGrad(() => {
    for (const [name, parts] of places) {
      scope(() => {
        const { dtype } = parts[0]!.target;
        const values = files.read(name, { dtype });
        const whole = parts[0]!.transposed ? transpose(values) : values;
        for (const { rows, target, offset, partShape } of parts) {
          const part = rows ? slice(whole, 0, rows[0], rows[1]) : whole;
          view(target, partShape, offset).write(part.readSync());
        }
      });
    }
  });
}

/** The tensors that a family's files hold of these parameters (or of their gradients), by file name. They belong to the caller's scope. */
export function fileTensorsOf(
  architecture: Architecture,
  config: LanguageModelConfig,
  state: Iterable<readonly [string, Tensor]>,
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  noGrad(() => {
    for (const [name, parts] of placesOf(architecture, config, state)) {
      const values = [...parts]
        .sort((a, b) => (a.rows?.[0] ?? 0) - (b.rows?.[0] ?? 0))
        .map(({ target, partShape, offset }) => view(target, partShape, offset));
      const whole = values.length === 1 ? values[0]! : cat(values, 0);
      tensors.set(name, parts[0]!.transposed ? transpose(whole) : whole);
    }
  });
  return tensors;
}
