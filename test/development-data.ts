import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The folder of real data for development, which is not part of the package, when it holds `needed`: `LIBMOE_DATA`, else `shared/data` beside the
 * checkout. Undefined, with a warning, when it does not: skip what needs it.
 */
export function developmentData(needed: string): string | undefined {
  const beside = ['../../shared/data', '../../../shared/data'].map((each) =>
    fileURLToPath(new URL(each, import.meta.url)),
  );
  const given = process.env.LIBMOE_DATA;
  const found = [...(given ? [given] : []), ...beside, '/work/shared/data'].find((folder) =>
    existsSync(join(folder, needed)),
  );
  if (found === undefined)
    console.warn(`SKIPPED: ${needed} is not here (set LIBMOE_DATA to the folder of development data)`);
  return found;
}
