#!/usr/bin/env node
// cuda/VERIFIED.json: which CUDA sources have run on a real GPU, and what they passed there. Only `record` writes that something did.
//   node scripts/gpu-ledger.mjs                  what is verified, stale or not yet run
//   node scripts/gpu-ledger.mjs refresh          entries of sources that are new or gone; FEATURES.md's table
//   node scripts/gpu-ledger.mjs record FILE      takes over a result.json of scripts/verify-on-gpu
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const sha256 = (text) => createHash('sha256').update(text).digest('hex');
const read = (root, file) => readFileSync(path.join(root, file), 'utf8');

/** Every CUDA source and header of the checkout. */
export function sources(root = here) {
  return readdirSync(path.join(root, 'cuda'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cu|h)$/.test(name))
    .map((name) => `cuda/${name}`)
    .sort();
}

/** The files of the checkout that `source` includes, directly or not, without itself. */
function includes(root, source, seen = new Set([source])) {
  for (const [, name] of read(root, source).matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
    const found = [name, `native/${name}`, path.join(path.dirname(source), name)]
      .map((file) => path.normalize(file))
      .find((file) => existsSync(path.join(root, file)));
    if (!found || seen.has(found)) continue;
    seen.add(found);
    includes(root, found, seen);
  }
  return [...seen].filter((file) => file !== source).sort();
}

/** The part of CMakeLists.txt that says how CUDA sources are compiled. */
function flags(root) {
  const text = read(root, 'CMakeLists.txt');
  const from = text.indexOf('function(libmoe_cuda ');
  const architectures = /^set\(LIBMOE_CUDA_ARCHITECTURES.*$/m.exec(text)?.[0] ?? '';
  if (from < 0 || !architectures)
    throw new Error(
      'CMakeLists.txt no longer says how CUDA is compiled in the way that scripts/gpu-ledger.mjs reads',
    );
  return architectures + text.slice(from, text.indexOf('endfunction()', from));
}

/** Hashes of a source and of everything else that its machine code depends on. */
export function fingerprint(source, root = here) {
  const others = includes(root, source).map((file) => `${file} ${sha256(read(root, file))}`);
  return { sha256: sha256(read(root, source)), depends: sha256([...others, flags(root)].join('\n')) };
}

const families = (root) => JSON.parse(read(root, 'test/device-files.json'));

/** The family of test/device-files.json that a .cu file belongs to; undefined: it serves all of them. */
export function familyOf(source, root = here) {
  if (!source.endsWith('.cu')) return undefined;
  const name = path.basename(source, '.cu');
  return Object.keys(families(root))
    .filter((family) => name === family || name.startsWith(`${family}_`))
    .sort((a, b) => b.length - a.length)[0];
}

/** Test files that must pass before a source counts as verified. */
export function testsOf(source, root = here) {
  const all = families(root);
  const family = familyOf(source, root);
  return family ? all[family] : Object.values(all).flat();
}

export const readLedger = (root = here) =>
  existsSync(path.join(root, 'cuda/VERIFIED.json'))
    ? JSON.parse(read(root, 'cuda/VERIFIED.json'))
    : { files: {} };

const notRun = { passed: [], note: 'not yet run on a GPU' };

/** 'verified', 'stale' (it, something that it includes, or a flag has changed since) or 'not yet run'. */
export function state(source, ledger, root = here) {
  const entry = ledger.files[source];
  if (!entry || entry.passed.length === 0) return 'not yet run';
  const now = fingerprint(source, root);
  return entry.sha256 === now.sha256 && entry.depends === now.depends ? 'verified' : 'stale';
}

/** What is wrong with a ledger whatever a GPU would say: sources without entry, entries without source, claims without evidence. */
export function faults(ledger, root = here) {
  const now = sources(root);
  return [
    ...now
      .filter((s) => !ledger.files[s])
      .map((s) => `${s} has no entry: run node scripts/gpu-ledger.mjs refresh`),
    ...Object.keys(ledger.files)
      .filter((s) => !now.includes(s))
      .map((s) => `${s} has an entry, but no longer exists: run node scripts/gpu-ledger.mjs refresh`),
    ...Object.entries(ledger.files).flatMap(([s, e]) =>
      e.passed.length > 0 &&
      ['sha256', 'depends', 'device', 'driver', 'commit', 'date', 'log'].some((key) => !e[key])
        ? [`${s} claims to have passed ${e.passed.join(', ')} without saying where`]
        : e.passed.length > 0 && !existsSync(path.join(root, e.log))
          ? [`${s}: its log ${e.log} is not there`]
          : [],
    ),
  ];
}

/** The ledger after a run: `result` is what scripts/gpu-results.mjs wrote on the machine with the GPU, `log` the committed file that keeps it. */
export function recorded(ledger, result, log, root = here) {
  if (result.device.emulated) throw new Error(`${result.device.name} is no GPU: nothing is recorded`);
  const files = { ...ledger.files };
  for (const source of sources(root)) {
    const now = fingerprint(source, root);
    const then = result.sources[source];
    // What ran was another version: its claim, if any, stays what it was.
    if (then?.sha256 !== now.sha256 || then.depends !== now.depends) continue;
    const passed = result.runs
      .filter((run) => ranIn(run, source) && passes(run, source, root))
      .map((run) => run.name);
    if (passed.length === 0) continue;
    const earlier = files[source];
    const same =
      earlier?.sha256 === now.sha256 &&
      earlier.depends === now.depends &&
      earlier.device === result.device.name;
    files[source] = {
      ...now,
      device: result.device.name,
      driver: result.device.driver,
      commit: result.commit,
      date: result.date,
      log,
      passed: [...new Set([...(same ? earlier.passed : []), ...passed])].sort(),
    };
  }
  return { files: sorted(files) };
}

/** All tests of its family passed; of what serves all families, none failed, though some may have had nothing to say on this card. */
function passes(run, source, root) {
  const outcomes = testsOf(source, root).map((test) => run.files[test]);
  const others = familyOf(source, root) ? [] : ['skipped'];
  return outcomes.includes('passed') && outcomes.every((o) => o === 'passed' || others.includes(o));
}

/** The kernels of one generation run only where that generation was chosen. */
function ranIn(run, source) {
  const folder = path.basename(path.dirname(source));
  return (folder !== 'sm80' || run.kernels === 80) && (folder !== 'sm90' || run.kernels === 90);
}

const sorted = (files) => Object.fromEntries(Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1)));

/** The table for FEATURES.md: one row per CUDA source file. */
export function table(ledger, root = here) {
  const rows = sources(root)
    .filter((s) => s.endsWith('.cu'))
    .map((s) => {
      const entry = ledger.files[s];
      const now = state(s, ledger, root);
      const what =
        now === 'verified'
          ? `${entry.passed.join('; ')} on ${entry.device}, ${entry.date.slice(0, 10)}`
          : now === 'stale'
            ? 'changed since it last ran on a GPU'
            : 'not yet run on a GPU';
      return `| \`${s}\` | ${what} |`;
    });
  return ['| CUDA source | on a real GPU |', '| --- | --- |', ...rows].join('\n');
}

const block = /(<!-- gpu:begin[^\n]*-->\n)[\s\S]*?(\n<!-- gpu:end -->)/;

/** FEATURES.md with its table made new; undefined where it has no markers. */
export function features(text, ledger, root = here) {
  return block.test(text)
    ? text.replace(block, (_, begin, end) => begin + table(ledger, root) + end)
    : undefined;
}

function write(ledger) {
  writeFileSync(path.join(here, 'cuda/VERIFIED.json'), `${JSON.stringify(ledger, null, 2)}\n`);
  const text = features(read(here, 'FEATURES.md'), ledger);
  if (text) writeFileSync(path.join(here, 'FEATURES.md'), text);
}

function main([command, file]) {
  const ledger = readLedger();
  if (command === 'refresh') {
    const files = Object.fromEntries(sources().map((s) => [s, ledger.files[s] ?? notRun]));
    write({ files });
  } else if (command === 'record') {
    const result = JSON.parse(readFileSync(file, 'utf8'));
    const log = `bench/results/verified-${result.date.replaceAll(':', '-').slice(0, 19)}.json`;
    const next = recorded(ledger, result, log);
    mkdirSync(path.join(here, path.dirname(log)), { recursive: true });
    writeFileSync(path.join(here, log), `${JSON.stringify(result, null, 2)}\n`);
    write(next);
  } else if (command !== undefined) {
    console.error(`ERR_LIBMOE_ARGUMENT: expects refresh, record FILE or nothing, got ${command}`);
    process.exit(2);
  }
  const now = readLedger();
  for (const source of sources())
    console.log(`${state(source, now).padEnd(12)} ${source}  ${now.files[source]?.passed.join('; ') ?? ''}`);
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(`ERR_LIBMOE_STATE: ${error.message}`);
    process.exit(1);
  }
}
