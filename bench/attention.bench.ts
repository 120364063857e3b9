import { attention, attentionCached } from '../ts/tensor/attention.ts';
import type { Dtype } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

interface Shape {
  name: string;
  tokens: number;
  heads: number;
  keyHeads: number;
  width: number;
}

const causal: Shape[] = [
  { name: 'causal', tokens: 2048, heads: 8, keyHeads: 8, width: 64 },
  { name: 'grouped', tokens: 2048, heads: 16, keyHeads: 4, width: 64 },
];

function whole(shape: Shape, dtype: Dtype, pass: 'forward' | 'train'): BenchCase {
  const { name, tokens, heads, keyHeads, width } = shape;
  const pairs = (tokens * (tokens + 1)) / 2;
  const own = tokens * width * heads;
  const shared = 2 * tokens * width * keyHeads;
  return opCase({
    name: `attention/${name}-${tokens}x${heads}of${keyHeads}x${width}`,
    dtype,
    pass,
    inputs: {
      q: { shape: [tokens, heads, width], seed: 1, grad: true },
      k: { shape: [tokens, keyHeads, width], seed: 2, grad: true },
      v: { shape: [tokens, keyHeads, width], seed: 3, grad: true },
      sequenceOffsets: { shape: [2], seed: 0, values: [0, tokens] },
    },
    peer: 'attention',
    // Two products of every visible pair; backward makes five.
    flops: 2 * pairs * heads * width * (pass === 'train' ? 7 : 2),
    bytes: bytesOf((2 * own + shared) * (pass === 'train' ? 3 : 1), dtype),
    compute: ({ q, k, v, sequenceOffsets }) => [attention(q, k, v, { sequenceOffsets })],
  });
}

/** One new token for each of several sequences whose keys and values lie in a paged cache. */
function decode(dtype: Dtype): BenchCase {
  const [sequences, keys, heads, keyHeads, width, blockSize] = [16, 1024, 16, 4, 64, 64];
  const blocks = keys / blockSize;
  const pool = [sequences * blocks, blockSize, keyHeads, width];
  const count = (n: number) => Array.from({ length: n }, (_, i) => i);
  return opCase({
    name: `attention/decode-${sequences}x${keys}x${heads}of${keyHeads}x${width}`,
    dtype,
    inputs: {
      q: { shape: [sequences, heads, width], seed: 1 },
      k: { shape: pool, seed: 2 },
      v: { shape: pool, seed: 3 },
      blockTable: { shape: [sequences, blocks], seed: 0, values: count(sequences * blocks) },
      queryOffsets: { shape: [sequences + 1], seed: 0, values: count(sequences + 1) },
      keyLengths: { shape: [sequences], seed: 0, values: new Array<number>(sequences).fill(keys) },
    },
    peer: 'attention_decode',
    flops: 4 * sequences * keys * heads * width,
    bytes: bytesOf(2 * sequences * keys * keyHeads * width, dtype),
    compute: ({ q, k, v, ...placement }) => [attentionCached(q, k, v, placement)],
  });
}

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) => [
  ...causal.flatMap((shape) => [whole(shape, dtype, 'forward'), whole(shape, dtype, 'train')]),
  decode(dtype),
]);
