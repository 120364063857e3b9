import { fail, native } from '../../native/index.ts';
import type { Safetensors } from '../../storage/safetensors.ts';
import { empty, scope, view } from '../../tensor/index.ts';
import { stridesInOrder } from './element-order.ts';
import type { Place } from './file-tensors.ts';

const groupSize = 32;

/**
 * Whether a file holds a tensor as 4-bit numbers in groups of 32 with a scale each (MXFP4 of the OCP microscaling formats, version 1.0, 2023), as
 * gpt-oss was published: `<name>_blocks` u8 [..., groups, 16] and `<name>_scales` u8 [..., groups].
 */
export function isMxfp4(files: Safetensors, name: string, part: Place): boolean {
  return part.arranged?.mxfp4 !== undefined && !files.has(name) && files.has(`${name}_blocks`);
}

/** Throws ERR_LIBMOE_CHECKPOINT for blocks or scales that are missing or of a wrong shape. */
export function checkMxfp4(files: Safetensors, name: string, { arranged }: Place): void {
  const [experts = 0, ...slice] = arranged!.shape;
  const size = slice.reduce((a, b) => a * b, 1);
  for (const [entry, wanted] of [
    [files.entry(`${name}_blocks`), (experts * size) / 2],
    [files.entry(`${name}_scales`), (experts * size) / groupSize],
  ] as const) {
    const stored = entry.shape.reduce((a, b) => a * b, 1);
    if (entry.dtype !== 'u8' || stored !== wanted || entry.shape[0] !== experts) {
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `${entry.file}: "${entry.name}" should hold ${wanted} bytes (U8) for ${experts} experts, got ${entry.formatDtype} [${entry.shape.join(', ')}]`,
      );
    }
  }
}

/** Dequantises such a tensor, once checked, into a part, one slice of its first axis (an expert) at a time. */
export function readMxfp4(files: Safetensors, name: string, { arranged, target, offset }: Place): void {
  const { shape, mxfp4 } = arranged!;
  const slice = shape.slice(1);
  const size = slice.reduce((a, b) => a * b, 1);
  const groups = size / groupSize;
  const from = stridesInOrder(
    slice,
    mxfp4!.slice(1).map((axis) => axis - 1),
  );
  const to = stridesInOrder(slice, [...slice.keys()]);
  for (let expert = 0; expert < shape[0]!; expert++) {
    scope(() => {
      const blocks = empty([groups, groupSize / 2], { dtype: 'u8', device: target.device });
      files.readInto(`${name}_blocks`, blocks, { offset: (expert * size) / 2, strides: [groupSize / 2, 1] });
      const scales = empty([groups], { dtype: 'u8', device: target.device });
      files.readInto(`${name}_scales`, scales, { offset: expert * groups, strides: [1] });
      const values = empty([groups, groupSize], { dtype: target.dtype, device: target.device });
      native().dequantiseMxfp4(blocks.handle, scales.handle, values.handle);
      const place = view(target, slice, offset + expert * size);
      native().copyStrided(values.handle, place.handle, slice, from, 0, to, 0);
    });
  }
}
