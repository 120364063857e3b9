import { fail } from '../native/index.ts';

/** A positive whole number from an option's text. */
export function whole(option: string, text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1)
    fail('ERR_LIBMOE_ARGUMENT', `${option} expects a positive whole number, got "${text}"`);
  return n;
}

/** A seed: a whole number from 0 on. */
export function seed(option: string, text: string): number {
  const n = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(n) || n < 0)
    fail('ERR_LIBMOE_ARGUMENT', `${option} expects a whole number, 0 or more, got "${text}"`);
  return n;
}

export function number(option: string, text: string): number {
  const n = Number(text);
  if (text.trim() === '' || !Number.isFinite(n))
    fail('ERR_LIBMOE_ARGUMENT', `${option} expects a number, got "${text}"`);
  return n;
}

/** One of `allowed`. */
export function oneOf(option: string, text: string, allowed: readonly string[]): string {
  if (!allowed.includes(text))
    fail('ERR_LIBMOE_ARGUMENT', `${option} expects ${allowed.join(', ')}, got "${text}"`);
  return text;
}

/** `all`, `every:2` or a list such as `1,3`. */
export function layerSelection(text: string): 'all' | `every:${number}` | number[] {
  if (text === 'all') return text;
  if (/^every:[1-9]\d*$/.test(text)) return text as `every:${number}`;
  return text.split(',').map((part) => {
    const n = Number(part);
    if (part.trim() === '' || !Number.isInteger(n) || n < 0)
      fail('ERR_LIBMOE_ARGUMENT', `--layers expects all, every:N or a list such as 1,3, got "${text}"`);
    return n;
  });
}

/** `--device` of the commands that load a model and run it. */
export const deviceOption: readonly [flags: string, description: string, standard: string] = [
  '--device <device>',
  'cpu, or cuda:0 and so on',
  'cpu',
];

/** Takes the device that was asked for as the place of everything that follows. */
export async function takeDevice(device: string): Promise<void> {
  const { setDefaultDevice } = await import('../tensor/index.ts');
  setDefaultDevice(device as `cuda:${number}`);
}

/** Repeatable options: `--set a=1 --set b=2`. */
export const collect = (value: string, before: string[] = []): string[] => [...before, value];
