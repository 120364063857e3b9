import { fail } from '../../native/index.ts';
import { add, cast, exp, multiply, scale, softplus } from '../../tensor/elementwise.ts';
import { matmul } from '../../tensor/gemm.ts';
import { scope, type Tensor, tensor } from '../../tensor/index.ts';
import { inverseNorms } from '../../tensor/norm.ts';
import { sum } from '../../tensor/reduction.ts';

/** Rows of length 1. */
const normalised = (x: Tensor): Tensor => multiply(x, inverseNorms(x, { floor: 1e-12 }));

/**
 * How well images and texts go together: e^logitScale · cosine + logitBias, whose sigmoid is SigLIP's probability of a pair.
 * @param imageEmbeddings `[images, width]` @param textEmbeddings `[texts, width]`; of any length
 * @param logitScale `[1]` @param logitBias `[1]`
 * @returns `[images, texts]` in f32 (f64 for f64)
 */
export function imageTextLogits(
  imageEmbeddings: Tensor,
  textEmbeddings: Tensor,
  logitScale: Tensor,
  logitBias: Tensor,
): Tensor {
  const [, width] = imageEmbeddings.shape;
  if (imageEmbeddings.rank !== 2 || textEmbeddings.rank !== 2 || textEmbeddings.shape[1] !== width)
    fail(
      'ERR_LIBMOE_SHAPE',
      `expected embeddings [images, width] and [texts, width], got [${imageEmbeddings.shape.join(', ')}] and [${textEmbeddings.shape.join(', ')}]`,
    );
  return scope(() => {
    const dtype = imageEmbeddings.dtype === 'f64' ? 'f64' : 'f32';
    const [images, texts, factor, bias] = [imageEmbeddings, textEmbeddings, logitScale, logitBias].map((t) =>
      cast(t, dtype),
    ) as [Tensor, Tensor, Tensor, Tensor];
    const cosines = matmul(normalised(images), normalised(texts), { transposeB: true });
    return add(multiply(cosines, exp(factor)), bias);
  });
}

/**
 * SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343): every pair of an image and a text is a decision of its own, whether they belong together;
 * −Σ log σ(±logit) over all pairs, divided by the number of images. Where it starts: logitScale ln 10, logitBias −10.
 * @param imageEmbeddings `[images, width]` @param textEmbeddings `[texts, width]`; they are divided by their lengths here
 * @param logitScale `[1]`, of which e^ is the factor @param logitBias `[1]`
 * @param matches of each image and text, row by row, whether they belong together, for batches in which a text fits several images; default: the
 *   first image with the first text, the second with the second, …
 * @returns a scalar
 * @throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_ARGUMENT for as many texts as images without `matches`
 */
export function sigmoidContrastiveLoss(
  imageEmbeddings: Tensor,
  textEmbeddings: Tensor,
  logitScale: Tensor,
  logitBias: Tensor,
  matches?: ArrayLike<boolean | number>,
): Tensor {
  const images = imageEmbeddings.shape[0]!;
  const texts = textEmbeddings.shape[0]!;
  if (matches === undefined ? images !== texts : matches.length !== images * texts)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      matches === undefined
        ? `${images} images and ${texts} texts are not pairs: say in matches which belong together`
        : `matches must have ${images} · ${texts} entries, got ${matches.length}`,
    );
  return scope(() => {
    const logits = imageTextLogits(imageEmbeddings, textEmbeddings, logitScale, logitBias);
    const belongs = (i: number): boolean =>
      matches ? Boolean(matches[i]) : Math.floor(i / texts) === i % texts;
    const signs = Float64Array.from({ length: images * texts }, (_, i) => (belongs(i) ? -1 : 1));
    const { dtype, device } = logits;
    // −log σ(z) = softplus(−z).
    const terms = softplus(multiply(logits, tensor(signs, [images, texts], { dtype, device })));
    return scale(sum(terms), 1 / Math.max(1, images));
  });
}
