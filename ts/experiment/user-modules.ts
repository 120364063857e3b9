import { statSync } from 'node:fs';
import module from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { codeOf, fail } from '../native/index.ts';

let hooked = false;

/**
 * Lets Node import TypeScript, and find libmoe from a file outside any project. Node 24 and newer strip types themselves and know `using`; older
 * ones get the same through the typescript package, hooked into the module loader.
 */
export function hookTypeScript(): void {
  if (!hooked) module.register('./script-hooks.js', import.meta.url);
  hooked = true;
}

/** The absolute path of a user's program. @throws ERR_LIBMOE_FILE when there is none, or it is no .ts, .mts, .js or .mjs file */
export function userModule(file: string): string {
  const whole = path.resolve(file);
  const found = statSync(whole, { throwIfNoEntry: false });
  if (!found) fail('ERR_LIBMOE_FILE', `no such script: ${whole}`);
  if (!found.isFile() || !/\.m?[jt]s$/.test(whole))
    fail('ERR_LIBMOE_FILE', `expected a .ts, .mts, .js or .mjs file, got ${whole}`);
  return whole;
}

/**
 * Imports a user's file for what it registers (routers, tasks, metrics), once however often it is named.
 * @param file TypeScript or JavaScript; a relative path starts from the working folder, as all paths of a recipe
 * @throws ERR_LIBMOE_FILE when there is no such file, or it cannot be imported
 */
export async function importUserModule(file: string): Promise<void> {
  const whole = userModule(file);
  hookTypeScript();
  try {
    await import(pathToFileURL(whole).href);
  } catch (error) {
    if (codeOf(error) !== undefined) throw error;
    fail(
      'ERR_LIBMOE_FILE',
      `importing ${whole} failed: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  }
}
