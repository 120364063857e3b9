import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fail, packageRoot } from '../native/index.ts';

/** A file of a data set that comes as an npm package. @throws ERR_LIBMOE_DATA naming the one `npm i` when it is not installed */
export function npmDataFile(packageName: string, file = ''): string {
  // The user's project first, so that an installed libmoe finds what the user installed beside it.
  for (const base of [join(process.cwd(), 'package.json'), join(packageRoot, 'package.json')]) {
    try {
      return createRequire(base).resolve(join(packageName, file));
    } catch {
      // Not there: the next place.
    }
  }
  return fail(
    'ERR_LIBMOE_DATA',
    `this data set comes with the npm package ${packageName}: run "npm i ${packageName}" once`,
  );
}
