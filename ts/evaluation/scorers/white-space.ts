/** Whether a UTF-16 unit is white space as `\s` of a regular expression has it (Python's is another: `isSpace`). */
export function isBlank(unit: number): boolean {
  return unit === 32 || (unit >= 9 && unit <= 13) || (unit > 127 && WIDE.test(String.fromCharCode(unit)));
}
const WIDE = /\s/;
