/** Steps between the elements of a tensor of `shape` that lies in memory with its axes in the order `axes`, the last of them running fastest. */
export function stridesInOrder(shape: readonly number[], axes: readonly number[]): number[] {
  const strides = shape.map(() => 0);
  let step = 1;
  for (const axis of [...axes].reverse()) {
    strides[axis] = step;
    step *= shape[axis]!;
  }
  return strides;
}
