import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { filled } from './broadcast.ts';
import { emptyLike, type Tensor, zeros } from './tensor.ts';

/** Order of native/core/interpolation.h. */
const modes = ['bilinear', 'bicubic', 'area'] as const;

/** The sizes of [n, c, h, w]. */
function planesOf(name: string, x: Tensor): [n: number, c: number, h: number, w: number] {
  const [n, c, h, w] = x.shape;
  if (x.rank !== 4 || n === undefined || c === undefined || h === undefined || w === undefined)
    return fail(
      'ERR_LIBMOE_SHAPE',
      `${name} expects images [n, channels, height, width], got [${x.shape.join(', ')}]`,
    );
  return [n, c, h, w];
}

const positive = (value: number): boolean => Number.isInteger(value) && value > 0;

/** Where the elements of patches lie: sizes and strides of the axes [n, c, rows, patch, columns, patch] in the image and in the patches. */
function patchBox(shape: readonly [n: number, c: number, h: number, w: number], patch: number) {
  const [n, c, h, w] = shape;
  const rows = Math.floor(h / patch);
  const columns = Math.floor(w / patch);
  const width = c * patch * patch;
  return {
    rows: n * rows * columns,
    width,
    whole: rows * patch === h && columns * patch === w,
    sizes: [n, c, rows, patch, columns, patch],
    image: [c * h * w, h * w, patch * w, w, patch, 1],
    patches: [rows * columns * width, patch * patch, columns * width, patch, width, 1],
  };
}

/**
 * The square patches of images, side by side without overlap: pixels [n, c, h, w] → [n · ⌊h/p⌋ · ⌊w/p⌋, c · p · p], patches row by row, each in the
 * order of a flattened convolution weight [c, p, p]. Times that weight it is the convolution with stride p; pixels beyond the last whole patch
 * have no part in it, and a gradient of 0. Any dtype. Throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_ARGUMENT.
 */
export function unfold(pixels: Tensor, patch: number): Tensor {
  const shape = planesOf('unfold', pixels);
  if (!positive(patch) || patch > shape[2] || patch > shape[3])
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `unfold expects a patch side from 1 to the image's (${shape[2]} x ${shape[3]}), got ${patch}`,
    );
  const box = patchBox(shape, patch);
  const y = filled([box.rows, box.width], pixels, (to) =>
    native().copyStrided(pixels.handle, to, box.sizes, box.image, 0, box.patches, 0),
  );
  record({
    name: 'unfold',
    inputs: [pixels],
    outputs: [y],
    backward: ([dy]) => {
      const dx = box.whole ? emptyLike(pixels) : zeros(shape, { dtype: pixels.dtype, device: pixels.device });
      native().copyStrided(dy!.handle, dx.handle, box.sizes, box.patches, 0, box.image, 0);
      return [dx];
    },
  });
  return y;
}

/** A new size, and how values between pixels are found. */
export interface InterpolateOptions {
  height: number;
  width: number;
  /** `area`: the mean of what an output covers (adaptive average pooling). */
  mode: 'bilinear' | 'bicubic' | 'area';
}

/**
 * Images [n, c, h, w] in another size: [n, c, height, width], as torch.nn.functional.interpolate computes it with align_corners false and no
 * antialiasing (bicubic: Keys' kernel with a = −0.75). f32, bf16 or f64; differentiable, deterministic. Throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_ARGUMENT.
 */
export function interpolate(x: Tensor, options: InterpolateOptions): Tensor {
  const { height, width, mode } = options;
  const [n, c] = planesOf('interpolate', x);
  if (!positive(height) || !positive(width))
    fail('ERR_LIBMOE_ARGUMENT', `interpolate expects a positive height and width, got ${height} x ${width}`);
  const code = modes.indexOf(mode);
  if (code < 0)
    fail('ERR_LIBMOE_ARGUMENT', `interpolate knows the modes ${modes.join(', ')}, got ${String(mode)}`);
  const y = filled([n, c, height, width], x, (to) => native().interpolate(x.handle, to, code));
  record({
    name: 'interpolate',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().interpolateBackward(dy!.handle, dx.handle, code);
      return [dx];
    },
  });
  return y;
}
