/** The few wire forms of protocol buffers that TensorBoard's messages need. Every function returns one encoded field. */

/** Fields one after the other: the body of a message. */
export function message(...fields: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(fields);
}

/** int64, int32, enum: a varint. Negative numbers take ten bytes, as the format says. */
export function integerField(number: number, value: number): Uint8Array {
  return Buffer.from([...varint(key(number, 0)), ...varint(BigInt.asUintN(64, BigInt(value)))]);
}

export function doubleField(number: number, value: number): Uint8Array {
  const body = Buffer.alloc(8);
  body.writeDoubleLE(value);
  return Buffer.concat([Buffer.from(varint(key(number, 1))), body]);
}

export function floatField(number: number, value: number): Uint8Array {
  const body = Buffer.alloc(4);
  body.writeFloatLE(value);
  return Buffer.concat([Buffer.from(varint(key(number, 5))), body]);
}

/** string, bytes or an embedded message. */
export function bytesField(number: number, value: string | Uint8Array): Uint8Array {
  const body = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([Buffer.from([...varint(key(number, 2)), ...varint(BigInt(body.length))]), body]);
}

/** repeated double, packed. */
export function packedDoubles(number: number, values: readonly number[]): Uint8Array {
  const body = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => {
    body.writeDoubleLE(value, i * 8);
  });
  return bytesField(number, body);
}

const key = (number: number, wireType: number): bigint => BigInt(number * 8 + wireType);

function varint(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return bytes;
}
