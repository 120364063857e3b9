// Reads the machine code that nvcc made, without CUDA's own tools: fat binaries in an object, the cubins in them (ELF), and of each kernel the
// registers, the stack and the kinds of its instructions.
import { decompress } from 'fzstd';
import { type Section, sections } from './elf.ts';

/** Instructions that are looked for, by the low nine bits of their 16 bytes; bits 9 to 11 say what kind of operand comes last. */
const instructions: Readonly<Record<number, string>> = {
  60: 'HMMA', // mma.sync
  63: 'DMMA',
  59: 'LDSM', // ldmatrix
  430: 'LDGSTS', // cp.async
  496: 'HGMMA', // wgmma
  436: 'UTMALDG', // cp.async.bulk.tensor to shared memory
  437: 'UTMASTG',
  442: 'UBLKCP', // cp.async.bulk
  456: 'USETMAXREG', // setmaxnreg
  387: 'LDL', // local memory: spilled registers, or arrays that are indexed at run time
  391: 'STL',
};

export interface Kernel {
  name: string;
  /** 80, 90: what the cubin is for. */
  architecture: number;
  registers: number;
  /** Bytes of local memory of a thread. */
  stack: number;
  /** How often each of the instructions above occurs. */
  instructions: Record<string, number>;
}

const fatbinMagic = 0xba55ed50;

/** The PTX and cubins of a fat binary, unpacked; `ptx` says which an entry is. */
export function entries(fatbin: Buffer): { ptx: boolean; architecture: number; bytes: Buffer }[] {
  const found = [];
  let at = 0;
  while (at + 16 <= fatbin.length) {
    if (fatbin.readUInt32LE(at) !== fatbinMagic) {
      at += 8; // padding between two
      continue;
    }
    let entry = at + fatbin.readUInt16LE(at + 6);
    const end = entry + Number(fatbin.readBigUInt64LE(at + 8));
    while (entry < end) {
      const header = fatbin.readUInt32LE(entry + 4);
      const size = Number(fatbin.readBigUInt64LE(entry + 8));
      const packed = fatbin.readUInt32LE(entry + 16); // 0: as it is
      const body = fatbin.subarray(entry + header, entry + header + (packed || size));
      found.push({
        ptx: fatbin.readUInt16LE(entry) === 1,
        architecture: fatbin.readUInt32LE(entry + 28),
        bytes: packed ? Buffer.from(decompress(body)) : body,
      });
      entry += header + size;
    }
    at = end + ((8 - (end % 8)) % 8);
  }
  return found;
}

/** Attributes of .nv.info by symbol number: records of a format, an attribute and, in format 4, a length with a payload. */
function attribute(wanted: number, info: Buffer): Map<number, number> {
  const found = new Map<number, number>();
  for (let at = 0; at + 4 <= info.length; ) {
    const [format, kind, length] = [info[at], info[at + 1], info.readUInt16LE(at + 2)];
    if (format === 4 && kind === wanted) found.set(info.readUInt32LE(at + 4), info.readUInt32LE(at + 8));
    at += 4 + (format === 4 ? length : 0);
  }
  return found;
}

/** Names of functions by symbol number. */
function functions(all: readonly Section[]): Map<number, string> {
  const table = all.find((s) => s.name === '.symtab');
  const strings = table && all[table.link]!.bytes;
  const found = new Map<number, string>();
  for (let i = 0; strings && 24 * i < table.bytes.length; i += 1) {
    if ((table.bytes[24 * i + 4]! & 15) !== 2) continue;
    const from = table.bytes.readUInt32LE(24 * i);
    found.set(i, strings.toString('latin1', from, strings.indexOf(0, from)));
  }
  return found;
}

/** The kernels of one cubin. */
export function kernelsOf(cubin: Buffer, architecture: number): Kernel[] {
  const all = sections(cubin);
  const info = all.find((s) => s.name === '.nv.info')?.bytes ?? Buffer.alloc(0);
  const names = functions(all);
  const byName = (kind: number) =>
    new Map([...attribute(kind, info)].map(([n, value]) => [names.get(n), value]));
  const [registers, stack] = [byName(0x2f), byName(0x11)];
  return all
    .filter((s) => s.name.startsWith('.text.'))
    .map((s) => {
      const counts: Record<string, number> = {};
      for (let at = 0; at + 16 <= s.bytes.length; at += 16) {
        const name = instructions[s.bytes.readUInt16LE(at) & 0x1ff];
        if (name) counts[name] = (counts[name] ?? 0) + 1;
      }
      const name = s.name.slice('.text.'.length);
      return {
        name,
        architecture,
        registers: registers.get(name) ?? 0,
        stack: stack.get(name) ?? 0,
        instructions: counts,
      };
    });
}

/** The kernels in all cubins of an object file or shared library that nvcc made. */
export function kernelsIn(file: Buffer): Kernel[] {
  const fatbin = sections(file).find((s) => s.name === '.nv_fatbin');
  if (!fatbin) return [];
  return entries(fatbin.bytes)
    .filter((e) => !e.ptx)
    .flatMap((e) => kernelsOf(e.bytes, e.architecture));
}
