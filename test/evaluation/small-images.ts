// What the tests of questions about images share: how small images are prepared, and what colours they have.
export const side = 16;
export const processor = {
  image_processor_type: 'SiglipImageProcessor',
  do_resize: true,
  resample: 3,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  size: { height: side, width: side },
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
};
export const colours = ['#d02020', '#20a040', '#2040d0', '#e0c020', '#000000'];
