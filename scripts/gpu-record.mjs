// Takes over what came back from a machine with a GPU: `node scripts/gpu-record.mjs TAR…`. The ledger takes what ran in the version that lies here; the targets
// that the results answer are printed, and kept beside them.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { table, targets } from './gpu-targets.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const tars = process.argv.slice(2);
if (tars.length === 0) {
  console.error(
    'ERR_LIBMOE_ARGUMENT: expects the files that came back: scripts/verify-on-gpu record libmoe-verify.tar.gz',
  );
  process.exit(2);
}
const scratch = mkdtempSync(path.join(tmpdir(), 'libmoe-record-'));
try {
  // Later tars of a machine that stayed warm have the stages of the earlier ones too.
  const found = new Map();
  for (const [i, tar] of tars.entries()) {
    const folder = path.join(scratch, String(i));
    mkdirSync(folder);
    execFileSync('tar', ['-xf', tar, '-C', folder], { stdio: ['ignore', 'ignore', 2] });
    for (const stage of readdirSync(folder)) {
      const file = path.join(folder, stage, 'result.json');
      if (!existsSync(file)) {
        console.error(
          `${tar}: ${stage} has no result.json, it ended before its time; nothing of it is recorded`,
        );
        continue;
      }
      const result = JSON.parse(readFileSync(file, 'utf8'));
      found.set(`${stage} ${result.date}`, { file, result });
    }
  }
  const all = [...found.values()].sort((a, b) => (a.result.date < b.result.date ? -1 : 1));
  if (all.length === 0) throw new Error(`there is no result in ${tars.join(', ')}`);
  for (const { file } of all)
    execFileSync(process.execPath, [path.join(root, 'scripts/gpu-ledger.mjs'), 'record', file], {
      stdio: ['ignore', 'ignore', 2],
    });
  const rows = targets(all.map(({ result }) => result));
  const { device, commit, date } = all.at(-1).result;
  const name = `targets-${date.replaceAll(':', '-').slice(0, 19)}.json`;
  writeFileSync(
    path.join(root, 'bench/results', name),
    `${JSON.stringify({ device, commit, date, targets: rows }, null, 2)}\n`,
  );
  console.log(table(rows));
  console.log(
    execFileSync(process.execPath, [path.join(root, 'scripts/gpu-ledger.mjs')], { encoding: 'utf8' }),
  );
} catch (error) {
  console.error(error.stderr ? '' : `ERR_LIBMOE_FILE: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
