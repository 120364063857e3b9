import { readFileSync } from 'node:fs';

/** Ticks that processes of this machine ran, and ticks in which they wanted to but the host gave the processor away, since its start. */
interface Ticks {
  ran: number;
  stolen: number;
}

/** Of the text of /proc/stat: its first line sums over all processors. */
export function ticksOf(text: string): Ticks {
  const [user = 0, nice = 0, system = 0, , , interrupts = 0, soft = 0, stolen = 0] = (
    text.split('\n')[0] ?? ''
  )
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return { ran: user + nice + system + interrupts + soft, stolen };
}

/** Starts watching; the function returned says which share of the wanted processor time, 0 to 1, the host of a virtual machine took since. */
export function watchStolenTime(): () => number {
  if (process.platform !== 'linux') return () => 0;
  const now = (): Ticks => ticksOf(readFileSync('/proc/stat', 'utf8'));
  const before = now();
  return () => {
    const { ran, stolen } = now();
    const taken = stolen - before.stolen;
    return taken > 0 ? taken / (taken + ran - before.ran) : 0;
  };
}
