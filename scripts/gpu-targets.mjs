// The targets of the GPU kernels, as far as the results of scripts/verify-on-gpu answer them. A target that no result answers has no figure; nothing is filled in.
//   node scripts/gpu-targets.mjs RESULT.json…
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const layers = ['154M', '660M', 'A', 'B', 'OLMoE', 'Qwen3'];
const fastest = ['grouped_mm', 'grouped_mm_compiled', 'triton', 'sort_loop'];
/** Operations outweigh bytes there: the figure counts against a target, elsewhere it is reported. */
const bound = ['OLMoE', 'Qwen3'];

const ratioOf = (peer) => (peer && !('error' in peer) ? peer.ratio : undefined);

/** Kernel times in nanoseconds by name, of ncu's CSV in raw pages. */
export function kernelTimes(csv) {
  const cells = (line) => [...line.matchAll(/"((?:[^"]|"")*)"(?:,|$)/g)].map(([, cell]) => cell);
  const lines = csv.split('\n').filter((line) => line.startsWith('"'));
  const head = cells(lines[0] ?? '');
  const [name, time] = [
    head.indexOf('Kernel Name'),
    head.findIndex((h) => h.startsWith('gpu__time_duration')),
  ];
  if (name < 0 || time < 0) return [];
  const unit = cells(lines[1])[time];
  const factor = { ns: 1, nsecond: 1, us: 1e3, usecond: 1e3, ms: 1e6, msecond: 1e6 }[unit] ?? 1;
  return lines.slice(2).map((line) => {
    const row = cells(line);
    return { name: row[name], nanoseconds: Number(row[time].replaceAll(',', '')) * factor };
  });
}

/** Seconds that the two products of a layer's forward pass took, of a profile of one case: its first two. */
function productSeconds(profile) {
  const products = (profile ?? []).filter(({ name }) => name.includes('product_kernel')).slice(0, 2);
  return products.length === 2 ? products.reduce((sum, p) => sum + p.nanoseconds, 0) / 1e9 : undefined;
}

/** One row per target and layer: { target, layer, value, required, met, note }; `met` undefined: no figure, or nothing is required. */
export function targets(all) {
  // The emulated device's times mean nothing.
  const results = all.filter((r) => !r.device?.emulated);
  const device = results.find((r) => r.device)?.device;
  const native = device?.computeCapability === '9.0' ? 90 : 80;
  const cases = (kernels) =>
    new Map(
      results
        .filter((r) => r.bench && r.kernels === kernels)
        .flatMap((r) => r.bench.results.map((b) => [b.name, b])),
    );
  const own = cases(native);
  const old = cases(80);
  const peaks = results.findLast((r) => r.peaks)?.peaks;
  const profiles = Object.assign(
    {},
    ...results.filter((r) => r.kernels === native).map((r) => r.profiles ?? {}),
  );
  const rows = [];
  const add = (target, layer, value, required, compare, note) => {
    const known = value !== undefined && Number.isFinite(value);
    rows.push({
      target,
      layer,
      ...(known && { value }),
      ...(required !== undefined && { required: `${compare === 'least' ? '≥' : '≤'} ${required}` }),
      ...(known &&
        required !== undefined && { met: compare === 'least' ? value >= required : value <= required }),
      ...(note && { note }),
    });
  };
  const best = (b) => {
    const known = fastest
      .map((mode) => [mode, ratioOf(b?.peers[mode])])
      .filter(([, ratio]) => ratio !== undefined);
    return known.sort(([, a], [, c]) => a - c)[0];
  };
  for (const layer of layers) {
    const forward = own.get(`grouped_ffn/${layer}/bf16/experts/forward/uniform`);
    const train = own.get(`grouped_ffn/${layer}/bf16/layer/train/uniform`);
    const forward80 = old.get(`grouped_ffn/${layer}/bf16/experts/forward/uniform`);
    const routing = own.get(`routing/${layer}/bf16/recorded/uniform`);
    const saved = own.get(`grouped_ffn/${layer}/bf16/experts/saved/uniform`);
    const counts = bound.includes(layer);
    add(
      'experts forward against torch grouped_mm',
      layer,
      ratioOf(forward?.peers.grouped_mm),
      layer === 'Qwen3' ? 2.2 : 1.2,
      'least',
    );
    const share = ratioOf(forward?.peers.products);
    add(
      'experts forward, share of cuBLAS dense at equal operations',
      layer,
      share,
      counts ? 0.65 : undefined,
      'least',
    );
    const [mode, ratio] = best(train) ?? [];
    add('layer forward and backward against the fastest peer', layer, ratio, 1.2, 'least', mode);
    const seconds = productSeconds(profiles[`grouped_ffn/${layer}/bf16/experts/forward/uniform`]);
    const dense = forward?.peers.products?.median;
    if (native === 90)
      add(
        'grouped products (sm_90a) alone, share of cuBLAS dense',
        layer,
        dense !== undefined && seconds !== undefined ? dense / seconds : undefined,
        counts ? 0.75 : undefined,
        'least',
      );
    const peak = peaks?.mmaSyncTflops;
    add(
      'experts forward with mma.sync, share of the register peak',
      layer,
      forward80 && peak ? forward80.gflops / 1e3 / peak : undefined,
      counts ? 0.65 : undefined,
      'least',
    );
    add('experts forward with mma.sync against the Triton peer', layer, ratioOf(forward80?.peers.triton));
    const theirs = saved?.peers.by_hand?.savedBytes ?? saved?.peers.default?.savedBytes;
    add(
      'bytes kept for backward, share of the permuted-copy formulation',
      layer,
      saved && theirs ? saved.savedBytes / theirs : undefined,
      layer === 'A' ? undefined : 0.35,
      'most',
    );
    add('router, statistics and sort, share of the layer', layer, routing?.baseline?.ratio, 0.1, 'most');
    add(
      'router, statistics and sort, times their byte floor',
      layer,
      routing && peaks ? peaks.copyGigabytes / routing.gigabytes : undefined,
      2,
      'most',
    );
    const combine = peaks?.combine.find((c) => c.name === layer);
    add(
      'cost of a fixed order in the combine, share of the forward pass',
      layer,
      combine && forward ? (combine.orderedSeconds - combine.atomicSeconds) / forward.median : undefined,
      0.03,
      'most',
    );
  }
  const square = old.get('gemm/square-8192-8192x8192x8192-nt/bf16/forward');
  add(
    'dense product with mma.sync, share of the register peak',
    '8192³',
    square && peaks ? square.gflops / 1e3 / peaks.mmaSyncTflops : undefined,
    0.65,
    'least',
  );
  const step = own.get('training/154M-smoe/bf16/step');
  const known = ['compiled', 'eager']
    .map((mode) => [mode, ratioOf(step?.peers[mode])])
    .filter(([, r]) => r !== undefined);
  const [mode, ratio] = known.sort(([, a], [, b]) => a - b)[0] ?? [];
  add('training step against PyTorch', '154M', ratio, 1.3, 'least', mode);
  for (const name of [
    'norm/rmsNorm-131072x1024/bf16/forward',
    'norm/rmsNorm-131072x1024/bf16/train',
    'norm/layerNorm-131072x1024/bf16/forward',
    'norm/layerNorm-131072x1024/bf16/train',
    'optimizer/adamw-16x1048576/f32/forward',
  ]) {
    const b = own.get(name);
    add(
      'share of the measured copy bandwidth',
      name,
      b && peaks ? b.gigabytes / peaks.copyGigabytes : undefined,
      0.8,
      'least',
    );
  }
  return rows;
}

/** The rows as text. */
export function table(rows) {
  const line = ({ target, layer, value, required, met, note }) => {
    const figure = value === undefined ? 'no figure' : value.toPrecision(3);
    const verdict = met === undefined ? '' : met ? 'met' : 'NOT MET';
    return `${target.padEnd(66)} ${layer.padEnd(10)} ${figure.padStart(9)}  ${(required ?? 'reported').padEnd(8)} ${verdict} ${note ?? ''}`.trimEnd();
  };
  return rows.map(line).join('\n');
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url))
  console.log(table(targets(process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, 'utf8'))))));
