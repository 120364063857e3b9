import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, renameSync, rmSync } from 'node:fs';

/**
 * Copies a folder so that other processes of a sweep see it whole or not at all. When another one was first, its copy stays.
 * @param copy what copies into the temporary folder
 */
export function copyFolder(
  from: string,
  to: string,
  copy = (source: string, temporary: string): void => cpSync(source, temporary, { recursive: true }),
): void {
  const temporary = `${to}.tmp-${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    copy(from, temporary);
    try {
      renameSync(temporary, to);
    } catch (error) {
      if (!existsSync(to)) throw error;
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
