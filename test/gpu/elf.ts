// Just enough of ELF to read objects, shared libraries and cubins: all are 64-bit and little-endian.

export interface Section {
  name: string;
  type: number;
  link: number;
  bytes: Buffer;
}

const text = (bytes: Buffer, from: number) => bytes.toString('latin1', from, bytes.indexOf(0, from));

/** The sections of an ELF file; throws on anything else. */
export function sections(file: Buffer): Section[] {
  if (file.toString('latin1', 0, 4) !== '\x7fELF' || file[4] !== 2) throw new Error('not a 64-bit ELF file');
  const start = Number(file.readBigUInt64LE(0x28));
  const [size, count, names] = [0x3a, 0x3c, 0x3e].map((at) => file.readUInt16LE(at)) as [
    number,
    number,
    number,
  ];
  const raw = Array.from({ length: count }, (_, i) => {
    const at = start + i * size;
    const offset = Number(file.readBigUInt64LE(at + 0x18));
    const type = file.readUInt32LE(at + 4);
    const length = type === 8 ? 0 : Number(file.readBigUInt64LE(at + 0x20)); // 8: no bytes in the file
    return {
      nameAt: file.readUInt32LE(at),
      type,
      link: file.readUInt32LE(at + 0x28),
      bytes: file.subarray(offset, offset + length),
    };
  });
  return raw.map(({ nameAt, ...section }) => ({ ...section, name: text(raw[names]!.bytes, nameAt) }));
}

/** The libraries that a shared library asks the loader for. */
export function needed(file: Buffer): string[] {
  const all = sections(file);
  const dynamic = all.find((s) => s.type === 6);
  if (!dynamic) return [];
  const strings = all[dynamic.link]!.bytes;
  const found: string[] = [];
  for (let at = 0; at < dynamic.bytes.length; at += 16) {
    if (dynamic.bytes.readBigInt64LE(at) === 1n)
      found.push(text(strings, Number(dynamic.bytes.readBigUInt64LE(at + 8))));
  }
  return found;
}
