import { fail } from '../../native/index.ts';
import { shortList } from '../../nn/module.ts';
import type { Safetensors, StoredBox } from '../../storage/safetensors.ts';
import { type Dtype, noGrad, type Tensor, view } from '../../tensor/index.ts';
import { cat, permute, transpose } from '../../tensor/shape.ts';
import type { Architecture, FileTensor } from './architectures/index.ts';
import type { LanguageModelConfig } from './config.ts';
import { stridesInOrder } from './element-order.ts';
import { checkMxfp4, isMxfp4, readMxfp4 } from './mxfp4.ts';

/** A file tensor, or rows of it, and where in a parameter it lies. */
export interface Place extends FileTensor {
  target: Tensor;
  offset: number;
  /** Of the part within the parameter. */
  partShape: readonly number[];
}

/** What the tensors of a model are called in its files, and how they lie there. */
export interface FileLayout {
  /** Where a parameter of ours lies in the files. */
  fileTensors(name: string, shape: readonly number[]): FileTensor[];
  /** Names in files that may be left unread. */
  ignorable(name: string): boolean;
  /** See {@link Architecture.basePrefix}. */
  readonly basePrefix?: string | undefined;
}

/** That of a language model in the files of a family. */
export const layoutOf = (architecture: Architecture, config: LanguageModelConfig): FileLayout => ({
  fileTensors: (name, shape) => architecture.fileTensors(name, shape, config),
  ignorable: (name) =>
    architecture.ignorable(name, config) || (config.tieEmbeddings && name === 'lm_head.weight'),
  basePrefix: architecture.basePrefix,
});

/** All parts of each file tensor, by its name. */
function placesOf(layout: FileLayout, state: Iterable<readonly [string, Tensor]>): Map<string, Place[]> {
  const places = new Map<string, Place[]>();
  for (const [name, target] of state) {
    let offset = 0;
    for (const part of layout.fileTensors(name, target.shape)) {
      const [columns, rows, ...outer] = [...part.shape].reverse();
      const whole = part.transposed ? [...outer.reverse(), columns!, rows!] : part.shape;
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
function spelling({ basePrefix }: FileLayout, files: Safetensors): (name: string) => string {
  const bare = basePrefix !== undefined && files.names().every((name) => !name.startsWith(basePrefix));
  return (name) => (bare && name.startsWith(basePrefix) ? name.slice(basePrefix.length) : name);
}

/**
 * Fills parameters with what files hold of them. Names and shapes are all checked before a value is read.
 * @throws ERR_LIBMOE_CHECKPOINT naming missing, unexpected and mis-shaped tensors
 */
export function readFileTensors(
  layout: FileLayout,
  state: Iterable<readonly [string, Tensor]>,
  files: Safetensors,
  path: string,
): void {
  const spelled = spelling(layout, files);
  const places = new Map([...placesOf(layout, state)].map(([name, parts]) => [spelled(name), parts]));
  const packed = new Set(
    [...places].flatMap(([name, [part]]) => (isMxfp4(files, name, part!) ? [name] : [])),
  );
  const ofPacked = (name: string): boolean => packed.has(name.replace(/_(blocks|scales)$/, ''));
  const missing = [...places.keys()].filter((name) => !files.has(name) && !packed.has(name));
  const unexpected = files
    .names()
    .filter((name) => !places.has(name) && !ofPacked(name) && !layout.ignorable(name));
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
  for (const name of packed) checkMxfp4(files, name, places.get(name)![0]!);
  for (const [name, parts] of places) {
    for (const part of parts) {
      if (packed.has(name)) readMxfp4(files, name, part);
      else {
        using target = view(part.target, part.arranged?.shape ?? part.partShape, part.offset);
        files.readInto(name, target, boxOf(part));
      }
    }
  }
}

/** Where in its file tensor the elements of a part lie. */
function boxOf({ arranged, transposed, rows, shape }: Place): StoredBox {
  if (arranged) return { offset: 0, strides: stridesInOrder(arranged.shape, arranged.axes) };
  const axes = [...shape.keys()];
  if (transposed) axes.push(...axes.splice(-2).reverse());
  const strides = stridesInOrder(
    axes.map((axis) => shape[axis]!),
    axes,
  );
  return { offset: (rows?.[0] ?? 0) * (strides[0] ?? 1), strides };
}

/** The tensors that files hold of these parameters (or of their gradients), by file name. They belong to the caller's scope. */
export function fileTensorsOf(
  layout: FileLayout,
  state: Iterable<readonly [string, Tensor]>,
): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  noGrad(() => {
    for (const [name, parts] of placesOf(layout, state)) {
      const values = [...parts]
        .sort((a, b) => (a.rows?.[0] ?? 0) - (b.rows?.[0] ?? 0))
        .map(({ target, partShape, offset, arranged }) => {
          const part = view(target, arranged?.shape ?? partShape, offset);
          return arranged ? view(permute(part, arranged.axes), partShape) : part;
        });
      const whole = values.length === 1 ? values[0]! : cat(values, 0);
      tensors.set(name, parts[0]!.transposed ? transpose(whole) : whole);
    }
  });
  return tensors;
}
