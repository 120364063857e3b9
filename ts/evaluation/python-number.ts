import { strip } from './python-text.ts';

/**
 * Numbers with the semantics of the Python scorers whose results we reproduce: what counts as a number, how it is
 * rounded and how it is written.
 */

const DIGITS = '[0-9]+(?:_[0-9]+)*';
const FLOAT = new RegExp(`^[+-]?(?:${DIGITS}\\.?(?:${DIGITS})?|\\.${DIGITS})(?:e[+-]?${DIGITS})?$`, 'i');
const SPECIAL = /^([+-]?)(inf|infinity|nan)$/i;
const INTEGER = new RegExp(`^[+-]?${DIGITS}$`);
const FOREIGN_DIGIT = /[\x80-\u{10ffff}]/u;

/** The number's text without white space; Python reads the decimal digits of every script (each block of ten starts with its zero). */
function numeral(padded: string): string {
  // Here alone U+001C–001F are no white space.
  for (let i = 0; i < padded.length; i++) {
    const unit = padded.charCodeAt(i);
    if (unit >= 0x1c && unit <= 0x1f) return '';
  }
  const text = strip(padded);
  if (!FOREIGN_DIGIT.test(text)) return text;
  return text.replace(/\p{Nd}/gu, (digit) => {
    let zero = digit.codePointAt(0)!;
    const code = zero;
    while (/\p{Nd}/u.test(String.fromCodePoint(zero - 1))) zero--;
    return String((code - zero) % 10);
  });
}

/** `float(text)`; null where Python raises ValueError. */
export function pyFloat(text: string): number | null {
  const trimmed = numeral(text);
  if (FLOAT.test(trimmed)) return Number(trimmed.replaceAll('_', ''));
  const special = SPECIAL.exec(trimmed);
  if (special === null) return null;
  if (special[2]!.toLowerCase() === 'nan') return Number.NaN;
  return special[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/** `int(text)`, exact; null where Python raises ValueError. */
export function pyInt(text: string): bigint | null {
  const trimmed = numeral(text);
  if (!INTEGER.test(trimmed)) return null;
  const plain = trimmed.replaceAll('_', '');
  return plain.startsWith('-') ? -BigInt(plain.slice(1)) : BigInt(plain.replace('+', ''));
}

const view = new DataView(new ArrayBuffer(8));

/**
 * `round(value, digits)`: the exact binary value to the nearest multiple of 10^-digits, a true tie to the even one.
 * So 2.675 gives 2.67 (it is a little less) and 1.25 gives 1.2.
 */
export function pyRound(value: number, digits = 0): number {
  if (!Number.isFinite(value) || value === 0 || (Number.isInteger(value) && digits >= 0)) return value;
  view.setFloat64(0, Math.abs(value));
  const bits = view.getBigUint64(0);
  const field = Number(bits >> 52n);
  const mantissa = field === 0 ? bits : (bits & 0xfffffffffffffn) | 0x10000000000000n;
  const exponent = (field === 0 ? 1 : field) - 1075;
  // |value| · 10^digits as the fraction numerator / denominator.
  let numerator = mantissa;
  let denominator = 1n;
  if (exponent >= 0) numerator <<= BigInt(exponent);
  else denominator <<= BigInt(-exponent);
  if (digits >= 0) numerator *= 10n ** BigInt(digits);
  else denominator *= 10n ** BigInt(-digits);
  let quotient = numerator / denominator;
  const twice = (numerator % denominator) * 2n;
  if (twice > denominator || (twice === denominator && quotient % 2n === 1n)) quotient += 1n;
  const rounded = Number(`${quotient}e${-digits}`);
  return value < 0 ? -rounded : rounded;
}

/** `str(float)`: 2 is "2.0"; exponents from 1e16 and below 1e-4, with at least two digits. */
export function pyFloatStr(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf';
  if (Object.is(value, -0)) return '-0.0';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    const [mantissa, exponent] = value.toExponential().split('e') as [string, string];
    return `${mantissa}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  }
  const text = String(value);
  return text.includes('.') ? text : `${text}.0`;
}

/** `str(int(value))` of a float: towards zero; null for NaN and infinities, where Python raises. */
export function pyTruncateStr(value: number): string | null {
  return Number.isFinite(value) ? BigInt(Math.trunc(value)).toString() : null;
}
