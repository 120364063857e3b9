import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** A run folder stands for its newest checkpoint; anything else for itself. */
export function resolveCheckpoint(given: string): string {
  for (const folder of [path.join(given, 'checkpoints'), given]) {
    const latest = path.join(folder, 'latest');
    if (existsSync(latest)) return path.join(folder, readFileSync(latest, 'utf8').trim());
  }
  return given;
}
