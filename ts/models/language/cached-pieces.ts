import { fail } from '../../native/index.ts';
import type { CachePlacement } from '../../tensor/attention.ts';
import { type DeviceName, tensor } from '../../tensor/index.ts';
import { piecesOf } from './packed-batch.ts';

const commonDivisor = (a: number, b: number): number => (b === 0 ? a : commonDivisor(b, a % b));

/**
 * Tokens per block of a cache, default 16 or less. Of a model that cuts sequences into pieces each piece must begin a block: then its blocks hold all that a
 * layer may see.
 * @throws ERR_LIBMOE_ARGUMENT when `asked` does not divide the size of a piece
 */
export function blockSizeFor(pieceSize: number | undefined, asked: number | undefined): number {
  if (pieceSize !== undefined && asked !== undefined && pieceSize % asked !== 0) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `KvCache: blockSize ${asked} must divide the ${pieceSize} tokens of the pieces that layers of this model see: leave it out`,
    );
  }
  return asked ?? commonDivisor(16, pieceSize ?? 16);
}

/**
 * Where the pieces lie that new tokens see: as sequences of their own.
 * @param blocks of each sequence
 * @param starts tokens of each sequence before these
 * @param counts new tokens of each
 */
export function placePieces(
  blocks: readonly (readonly number[])[],
  starts: readonly number[],
  counts: readonly number[],
  { size, blockSize, device }: { size: number; blockSize: number; device: DeviceName },
): CachePlacement {
  const batch = [0];
  for (const count of counts) batch.push(batch.at(-1)! + count);
  const { pieces, offsets } = piecesOf(Int32Array.from(batch), size, starts);
  const each = size / blockSize;
  const table = new Int32Array(pieces.length * each).fill(-1);
  pieces.forEach(({ sequence, index }, i) => {
    table.set(blocks[sequence]!.slice(index * each, (index + 1) * each), i * each);
  });
  const lengths = pieces.map(({ length }) => length);
  const at = { dtype: 'i32', device } as const;
  return {
    blockTable: tensor(table, [pieces.length, each], at),
    queryOffsets: tensor(offsets, undefined, at),
    keyLengths: tensor(lengths, [pieces.length], at),
  };
}
