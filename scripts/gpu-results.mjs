// Sums up one stage of scripts/verify-on-gpu, on the machine with the GPU, in RESULTS/result.json: what scripts/gpu-ledger.mjs records.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fingerprint, sources } from './gpu-ledger.mjs';
import { kernelTimes } from './gpu-targets.mjs';

const [folder, stage, native, kernels] = process.argv.slice(2);
const root = process.cwd();
const json = (file) => JSON.parse(readFileSync(path.join(folder, file), 'utf8'));
const names = readdirSync(folder);

const { cuda } = json('inspect.json');
const { commit } = JSON.parse(readFileSync('pack.json', 'utf8'));

/** 'passed' only where tests of the file ran and none failed, 'skipped' where none had anything to say here. */
function outcomes(report) {
  return Object.fromEntries(
    report.testResults.map((file) => {
      const states = file.assertionResults.map((test) => test.status);
      const ran = states.filter((state) => state === 'passed' || state === 'failed').length;
      const sound = file.status === 'passed' && !states.includes('failed');
      return [path.relative(root, file.name), !sound ? 'failed' : ran > 0 ? 'passed' : 'skipped'];
    }),
  );
}

/** Whether compute-sanitizer's logs of a run exist and all end without an error. */
function clean(prefix) {
  const logs = names.filter((name) => name.startsWith(`${prefix}.`) && /\.\d+\.log$/.test(name));
  const summaries = logs.flatMap((name) =>
    [
      ...readFileSync(path.join(folder, name), 'utf8').matchAll(
        /(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)/g,
      ),
    ].map((m) => m[1]),
  );
  return summaries.length > 0 && summaries.every((count) => count === '0');
}

const path80 = native === '90' ? `tests, sm_80 kernels as PTX` : 'tests, sm_80 kernels';
const runs = [];
for (const name of names.filter((n) => /^test-\d+\.json$/.test(n))) {
  const kernels = Number(/\d+/.exec(name)[0]);
  runs.push({
    name: kernels === 90 ? 'tests, sm_90a kernels' : path80,
    kernels,
    files: outcomes(json(name)),
  });
}
for (const tool of ['memcheck', 'racecheck']) {
  const files = {};
  for (const name of names.filter((n) => n.startsWith(`${tool}-`) && n.endsWith('.json'))) {
    const isClean = clean(name.slice(0, -'.json'.length));
    for (const [file, outcome] of Object.entries(outcomes(json(name))))
      files[file] = isClean ? outcome : 'failed';
  }
  if (Object.keys(files).length > 0) runs.push({ name: tool, kernels: Number(native), files });
}
const notes = ['unavailable.txt', 'not-run.txt']
  .filter((name) => names.includes(name))
  .flatMap((name) => readFileSync(path.join(folder, name), 'utf8').trim().split('\n'));

/** Kernel times by case. */
const profiles = Object.fromEntries(
  names
    .filter((name) => /^profile-.*\.csv$/.test(name))
    .map((name) => [
      name.slice('profile-'.length, -'.csv'.length).replaceAll('@', '/'),
      kernelTimes(readFileSync(path.join(folder, name), 'utf8')),
    ]),
);

const device = cuda.devices[0];
const result = {
  stage,
  commit,
  date: new Date().toISOString(),
  device: { ...device, driver: cuda.driver ?? `CUDA ${cuda.driverCuda}`, runtime: cuda.runtime },
  notes,
  runs,
  kernels: Number(kernels),
  ...(names.includes('bench.json') && { bench: json('bench.json') }),
  ...(names.includes('peaks.json') && { peaks: json('peaks.json') }),
  ...(Object.keys(profiles).length > 0 && { profiles }),
  sources: Object.fromEntries(sources(root).map((source) => [source, fingerprint(source, root)])),
};
writeFileSync(path.join(folder, 'result.json'), `${JSON.stringify(result, null, 2)}\n`);
for (const run of runs) {
  const of = (which) =>
    Object.entries(run.files).flatMap(([file, outcome]) => (outcome === which ? [file] : []));
  const said = ['skipped', 'failed'].flatMap((which) =>
    of(which).length > 0 ? [`${which}: ${of(which).join(', ')}`] : [],
  );
  console.log(`${run.name}: ${of('passed').length} files passed`, ...said);
}
