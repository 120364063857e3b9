import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';

/** A run folder stands for its newest checkpoint, a name in `checkpoints/` (`runs/x/checkpoints/best`) for the one it names; anything else for itself. */
export function resolveCheckpoint(given: string): string {
  if (path.basename(path.dirname(path.resolve(given))) === 'checkpoints' && isFile(given))
    return path.join(path.dirname(given), readFileSync(given, 'utf8').trim());
  for (const folder of [path.join(given, 'checkpoints'), given]) {
    const latest = path.join(folder, 'latest');
    if (existsSync(latest)) return path.join(folder, readFileSync(latest, 'utf8').trim());
  }
  return given;
}

const isFile = (given: string): boolean => existsSync(given) && statSync(given).isFile();
