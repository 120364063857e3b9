import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { launchEnvironment } from '../distributed/index.ts';
import { fail, packageRoot } from '../native/index.ts';
import { isJsonObject, readJsonObject } from '../storage/json.ts';
import { parseDevice } from '../tensor/dtype.ts';
import { type DeviceName, threads } from '../tensor/index.ts';
import { whole } from './options.ts';
import { log, printJson, table } from './output.ts';

interface Runner {
  bench(options: {
    filters: string[];
    rounds: number;
    threads: number;
    device?: DeviceName;
    python?: string;
    modes?: readonly string[] | undefined;
    seconds?: number | undefined;
    json?: string;
    log(line: string): void;
  }): Promise<unknown>;
  compare(a: string, b: string): { name: string; a: number; b: number; ratio: number }[];
}

async function runner(): Promise<Runner> {
  const file = path.join(packageRoot, 'bench', 'run.ts');
  if (!existsSync(file))
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      'the benches are part of the source checkout, not of the installed package: clone the repository and run "npm run bench"',
    );
  const { hookTypeScript } = await import('../experiment/user-modules.ts');
  hookTypeScript();
  return (await import(pathToFileURL(file).href)) as Runner;
}

function deviceOf(text: string): DeviceName {
  parseDevice(text as DeviceName);
  return text as DeviceName;
}

function checkResultFile(file: string): void {
  const { results } = readJsonObject(file);
  const isResult = (r: unknown) =>
    isJsonObject(r) && typeof r.name === 'string' && typeof r.median === 'number';
  if (!Array.isArray(results) || !results.every(isResult))
    fail('ERR_LIBMOE_FILE', `${file} is not a result file of "bench --out"`);
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('time the op families, alone or against PyTorch in the same run')
    .argument('[cases...]', 'only cases whose name contains one of these')
    .option('--rounds <n>', 'samples per case', '9')
    .option('--threads <n>', 'threads of both sides (default: as the library, one per core)')
    .option('--device <name>', 'cpu or cuda:N: inputs lie there; the time of a GPU is its own', 'cpu')
    .option(
      '--peers [python]',
      'compare with PyTorch, run by this Python (default: $LIBMOE_PYTHON or python3)',
    )
    .option(
      '--modes <list>',
      "PyTorch's settings: default, medium (float32 through oneDNN), tuned (medium and an allocator that keeps its memory), by default the first and the last; on a GPU its ways to compute the same, of experts grouped_mm, triton, sort_loop, grouped_mm_compiled, and dense and products (no routing: the ceilings), by default all that a case has",
    )
    .option('--seconds <n>', 'begin no case later than this; those left out are listed')
    .option('--out <file>', 'write the results as JSON')
    .option('--compare', 'the two arguments are result files: show them side by side')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nDo not run anything else meanwhile. A ratio is the median over rounds of PyTorch time / our time: above 1, ours is faster.\n\nExamples: npm run bench -- grouped_ffn --peers --out now.json\n          npm run bench -- --compare before.json now.json\n          mpirun -n 4 npx libmoe bench collective (collectives between ranks)\nMore: docs/performance.md',
    )
    .action(
      async (
        cases: string[],
        o: {
          rounds: string;
          threads?: string;
          device: string;
          peers?: string | true;
          modes?: string;
          seconds?: string;
          out?: string;
          compare?: boolean;
          json?: boolean;
        },
      ) => {
        if (o.compare) {
          if (cases.length !== 2)
            fail('ERR_LIBMOE_ARGUMENT', '--compare expects two result files: bench --compare A.json B.json');
          for (const file of cases) checkResultFile(file);
          const { compare } = await runner();
          const rows = compare(cases[0]!, cases[1]!);
          if (o.json) printJson({ cases: rows });
          else
            console.log(
              table(
                ['case', 'A ms', 'B ms', 'A / B'],
                rows.map((r) => [
                  r.name,
                  (r.a * 1e3).toPrecision(4),
                  (r.b * 1e3).toPrecision(4),
                  r.ratio.toFixed(3),
                ]),
              ),
            );
          return;
        }
        const { bench } = await runner();
        const python = o.peers === true ? (process.env.LIBMOE_PYTHON ?? 'python3') : o.peers;
        const result = await bench({
          filters: cases,
          rounds: whole('--rounds', o.rounds),
          threads: o.threads ? whole('--threads', o.threads) : threads(),
          ...(python && { python }),
          device: deviceOf(o.device),
          modes: o.modes?.split(','),
          ...(o.seconds && { seconds: whole('--seconds', o.seconds) }),
          ...(o.out && { json: o.out }),
          log: o.json ? log : (line) => console.log(line),
        });
        // Of several ranks one speaks.
        if (o.json && launchEnvironment().rank === 0) printJson(result);
      },
    );
}
