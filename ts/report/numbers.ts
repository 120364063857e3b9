/** Numbers as a report shows them. A missing one is an en dash. */
export const missing = '–';

/** 1234567 → "1.23 M" */
export function compact(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return missing;
  const units = ['', ' k', ' M', ' G', ' T', ' P', ' E', ' Z', ' Y'];
  let unit = 0;
  let rest = value;
  // 999.5 would be shown as 1000.
  while (Math.abs(rest) >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return unit === 0 && Number.isInteger(rest) ? String(rest) : `${rest.toPrecision(3)}${units[unit]}`;
}

/** 75.3 → "1 min 15 s" */
export function duration(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return missing;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

export function fixed(value: number | undefined, digits: number): string {
  return value === undefined || !Number.isFinite(value) ? missing : value.toFixed(digits).replace('-', '−');
}

export function percent(value: number | undefined, digits = 1): string {
  return value === undefined || !Number.isFinite(value) ? missing : `${(100 * value).toFixed(digits)} %`;
}
