import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { fail } from '../../native/index.ts';
import type { DeviceName, Dtype } from '../../tensor/index.ts';
import { type LanguageModelConfig, type LanguageModelOptions, resolveLanguageModelConfig } from './config.ts';
import { LanguageModel } from './model.ts';

const headerBytes = 28;

/** Sections of the file in order; each holds all layers. */
interface Header {
  dim: number;
  hidden: number;
  layers: number;
  heads: number;
  keyValueHeads: number;
  vocabulary: number;
  tied: boolean;
  positions: number;
}

/** The header at the beginning of a file of `bytes` bytes, which must be as many as it tells. */
function readHeader(file: Buffer, bytes: number, path: string): Header {
  if (bytes < headerBytes)
    fail('ERR_LIBMOE_CHECKPOINT', `${path} is too short for a llama2.c checkpoint: ${bytes} bytes`);
  const [dim, hidden, layers, heads, keyValueHeads, vocabulary, positions] = Array.from(
    { length: 7 },
    (_, i) => file.readInt32LE(4 * i),
  ) as [number, number, number, number, number, number, number];
  const header = {
    dim,
    hidden,
    layers,
    heads,
    keyValueHeads,
    vocabulary: Math.abs(vocabulary),
    tied: vocabulary > 0,
    positions,
  };
  const sizes = [dim, hidden, layers, heads, keyValueHeads, header.vocabulary, positions];
  if (
    sizes.some((size) => size < 1 || size > 1 << 24) ||
    dim % heads !== 0 ||
    heads % keyValueHeads !== 0 ||
    (dim / heads) % 2 !== 0
  ) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${path} is not a llama2.c checkpoint: its header reads ${JSON.stringify(header)}`,
    );
  }
  const expected = expectedBytes(header);
  if (bytes !== expected) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${path} should have ${expected} bytes by its header, it has ${bytes}: truncated or another version`,
    );
  }
  return header;
}

function expectedBytes(header: Header): number {
  const { dim, hidden, layers, heads, keyValueHeads, vocabulary, positions } = header;
  const headDim = dim / heads;
  const perLayer = 2 * dim * dim + 2 * keyValueHeads * headDim * dim + 3 * hidden * dim;
  const norms = (2 * layers + 1) * dim;
  const embeddings = vocabulary * dim * (header.tied ? 1 : 2);
  return headerBytes + 4 * (embeddings + norms + layers * perLayer + positions * headDim);
}

const optionsOf = (header: Header): LanguageModelOptions => ({
  vocabularySize: header.vocabulary,
  dModel: header.dim,
  layers: header.layers,
  heads: header.heads,
  keyValueHeads: header.keyValueHeads,
  norm: 'rmsnorm',
  eps: 1e-5,
  feedForward: { hidden: header.hidden, activation: 'silu', gated: true, bias: false },
  tieEmbeddings: header.tied,
  maxPositions: header.positions,
});

/**
 * The configuration of a llama2.c checkpoint, of which the header alone is read.
 * @throws as {@link loadLlama2c}
 */
export function readLlama2cConfig(path: string): LanguageModelConfig {
  const head = Buffer.alloc(headerBytes);
  let bytes: number;
  try {
    const descriptor = openSync(path, 'r');
    try {
      readSync(descriptor, head, 0, headerBytes, 0);
      bytes = fstatSync(descriptor).size;
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `cannot read ${path}`, cause);
  }
  return resolveLanguageModelConfig(optionsOf(readHeader(head, bytes, path)));
}

/**
 * Loads a checkpoint of llama2.c (the legacy `.bin` layout: seven int32, then float32 tensors by kind). Its rotary embedding turns neighbouring
 * channels; the rows of queries and keys are reordered so that ours, which turns halves, gives the same scores.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_CHECKPOINT when the header is not plausible or the size does not fit it
 */
export function loadLlama2c(
  path: string,
  options: { device?: DeviceName; dtype?: Dtype } = {},
): LanguageModel {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `cannot read ${path}`, cause);
  }
  const header = readHeader(file, file.byteLength, path);
  const { dim, hidden, heads, keyValueHeads, vocabulary, positions } = header;
  const headDim = dim / heads;
  const kvDim = keyValueHeads * headDim;
  const model = new LanguageModel(optionsOf(header), { seed: 'later', ...options });
  let at = headerBytes;
  const take = (count: number): Float32Array => {
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) values[i] = file.readFloatLE(at + 4 * i);
    at += 4 * count;
    return values;
  };
  const perBlock = (count: number): Float32Array[] => model.blocks.map(() => take(count));
  model.embedding.weight.write(take(vocabulary * dim));
  const attentionNorms = perBlock(dim);
  const queries = perBlock(dim * dim);
  const keys = perBlock(kvDim * dim);
  const values = perBlock(kvDim * dim);
  const outputs = perBlock(dim * dim);
  const feedForwardNorms = perBlock(dim);
  const gates = perBlock(hidden * dim);
  const downs = perBlock(dim * hidden);
  const ups = perBlock(hidden * dim);
  model.finalNorm.weight.write(take(dim));
  at += 4 * positions * headDim;
  model.output?.weight.write(take(vocabulary * dim));
  for (const [i, block] of model.blocks.entries()) {
    const { attention, feedForward } = block;
    block.attentionNorm.weight.write(attentionNorms[i]!);
    attention.query.weight.write(halvesFromNeighbours(queries[i]!, heads, headDim, dim));
    attention.key.weight.write(halvesFromNeighbours(keys[i]!, keyValueHeads, headDim, dim));
    attention.value.weight.write(values[i]!);
    attention.output.weight.write(outputs[i]!);
    block.feedForwardNorm.weight.write(feedForwardNorms[i]!);
    const up = new Float32Array(2 * hidden * dim);
    up.set(gates[i]!);
    up.set(ups[i]!, hidden * dim);
    feedForward!.up.write(up);
    feedForward!.down.write(downs[i]!);
  }
  return model;
}

/** Reorders the rows of each head from pairs (2j, 2j + 1) to pairs (j, j + headDim / 2). */
function halvesFromNeighbours(
  rows: Float32Array,
  heads: number,
  headDim: number,
  width: number,
): Float32Array {
  const out = new Float32Array(rows.length);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < headDim; row++) {
      const target = Math.floor(row / 2) + (row % 2) * (headDim / 2);
      const from = (head * headDim + row) * width;
      out.set(rows.subarray(from, from + width), (head * headDim + target) * width);
    }
  }
  return out;
}
