import path from 'node:path';
import { z } from 'zod';
import { chooseTasks, type Task } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { explainIssues, nearestKey } from '../storage/schema-errors.ts';
import { checkBestMetric } from './metric-names.ts';
import { merged } from './overrides.ts';
import {
  type AnyRecipe,
  type AnyRecipeInput,
  importModulesOf,
  loadAnyRecipe,
  readRecipe,
  readYaml,
} from './recipe.ts';
import { folderName } from './recipe-parts.ts';
import { judgedMetrics, type SweepTask, sweepMetrics } from './sweep-measure.ts';

const changes = z.record(z.string(), z.unknown());
const dotted = z.string().regex(/^[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*$/, 'a path such as training.steps');

/** Values at one path of the recipe, at several at once, or named changes of any keys. */
const axisSchema = z.union([
  z.array(z.unknown()).min(1),
  z.strictObject({ paths: z.array(dotted).min(1), values: z.array(z.unknown()).min(1) }),
  z.strictObject({
    variants: z
      .record(z.string(), changes)
      .refine(
        (all) => Object.keys(all).length > 0,
        'expected at least one variant, such as { name: changes }',
      ),
  }),
]);

/** A sweep: one recipe, what is varied, and what the runs are judged by. */
export const sweepSchema = z.strictObject({
  name: folderName,
  /** The recipe that all runs share: its text, or a file, relative to the sweep's own. */
  base: z.union([z.string(), changes]),
  /**
   * What is varied; every combination is a run. A key is a path of the recipe. Two are special: `seed` makes the repetitions of a variant (it seeds
   * upcycled routers too), and `router` stands for the place where the recipe names its router.
   */
  axes: z.record(z.string(), axisSchema),
  compare: z
    .strictObject({
      /** The variant that all others are tested against; default: the first. */
      baseline: z.string().optional(),
      /** The held-out texts whose losses, or the task whose accuracies are compared; default: the first that the recipe names. */
      task: z.string().optional(),
      /** What rows are sorted by and tested on; default: `finalLoss` on texts, `accuracy` on questions, `trainingLoss` without either. */
      metric: z.enum(judgedMetrics).optional(),
      /** Columns of the table; default: all that were measured. */
      columns: z.array(z.enum(sweepMetrics)).optional(),
    })
    .prefault({}),
  /** Remarks on variants, printed below the table. */
  notes: z.record(z.string(), z.string()).default({}),
  /** Whether the last checkpoint of a finished run is kept. */
  checkpoints: z.enum(['last', 'none']).default('last'),
});
/** A sweep as one writes it. */
export type SweepInput = z.input<typeof sweepSchema>;

/** One run of a sweep. */
export interface SweepRun {
  variant: string;
  seed: number;
  /** `<variant>/<seed>` below the sweep's folder. */
  folder: string;
  recipe: AnyRecipe;
}

/** A sweep, checked, with every run's recipe. */
export interface Sweep {
  name: string;
  variants: string[];
  seeds: number[];
  runs: SweepRun[];
  baseline: string;
  task: (SweepTask & { questions?: Task }) | undefined;
  metric: (typeof judgedMetrics)[number];
  columns: readonly (typeof sweepMetrics)[number][];
  notes: Record<string, string>;
  checkpoints: 'last' | 'none';
}

/** What {@link loadSweep} may be told. */
export interface LoadSweepOptions {
  /** Laid over the base recipe. */
  changes?: Record<string, unknown>;
  /** Lay the base recipe's `smoke` block over it: the same sweep at toy size. */
  smoke?: boolean;
}

type Tree = Record<string, unknown>;
interface Setting {
  label: string;
  apply: (recipe: Tree) => Tree;
}

/** The tree with a value at a path, in place of all that was there: a router's options do not outlive the router. */
function placed(tree: unknown, [key, ...rest]: readonly string[], value: unknown): Tree {
  const before = typeof tree === 'object' && tree !== null ? (tree as Tree) : {};
  return { ...before, [key!]: rest.length === 0 ? value : placed(before[key!], rest, value) };
}

const isUpcycled = ({ start }: Tree): boolean => (start as Tree | undefined)?.upcycle !== undefined;

/** Where a recipe has what an axis calls by a short name. */
function pathsOf(axis: string, recipe: Tree): string[] {
  const upcycled = isUpcycled(recipe);
  if (axis === 'router') return [upcycled ? 'start.upcycle.router' : 'model.moe.router'];
  return axis === 'seed' && upcycled ? ['seed', 'start.upcycle.seed'] : [axis];
}

const nameOf = (value: unknown): string | undefined => {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return typeof (value as Tree).name === 'string' ? ((value as Tree).name as string) : undefined;
  return Array.isArray(value) ? value.map(nameOf).join('-') : String(value);
};

/** The first label that stands there twice. */
const repeated = (labels: readonly string[]): string | undefined =>
  labels.find((label, i) => labels.indexOf(label) !== i);

/** The settings of an axis with their labels. */
function settingsOf(axis: string, given: z.output<typeof axisSchema>, base: Tree, where: string): Setting[] {
  const refuse = (message: string): never => fail('ERR_LIBMOE_RECIPE', `${where}: axes.${axis}: ${message}`);
  const refuseStrange = (labels: readonly string[]): void => {
    const strange = labels.find((label) => !folderName.safeParse(label).success);
    if (strange !== undefined)
      refuse(`"${strange}" cannot name a folder: use variants: { name: changes } with a plain name`);
  };
  if (!Array.isArray(given) && 'variants' in given) {
    refuseStrange(Object.keys(given.variants));
    return Object.entries(given.variants).map(([label, tree]) => ({
      label,
      apply: (recipe) => merged(recipe, tree),
    }));
  }
  const values = Array.isArray(given) ? given : given.values;
  // Of seeds the variant decides: one may be upcycled where the base is not. A router stands where the base has it.
  const paths = (recipe: Tree): string[] =>
    Array.isArray(given) ? pathsOf(axis, axis === 'seed' ? recipe : base) : given.paths;
  const short = axis === 'router' || axis === 'seed' || !Array.isArray(given);
  const settings = values.map((value) => {
    const label = nameOf(value);
    if (label === undefined)
      return refuse(
        `${JSON.stringify(value)} has no name to call the variant by: use variants: { name: changes }`,
      );
    const router = axis === 'router' && typeof value === 'string';
    const placedValue = router ? { name: value } : value;
    return {
      label: short ? label : `${axis.split('.').at(-1)}-${label}`,
      apply: (recipe: Tree) =>
        paths(recipe).reduce<Tree>((tree, each) => placed(tree, each.split('.'), placedValue), recipe),
    };
  });
  const labels = settings.map(({ label }) => label);
  const twice = repeated(labels);
  if (twice !== undefined)
    refuse(`two values are called "${twice}": use variants: { name: changes } and give them names`);
  refuseStrange(labels);
  return settings;
}

/** Every combination, the first axis slowest. */
function combinations(axes: readonly Setting[][]): Setting[] {
  return axes.reduce<Setting[]>(
    (all, settings) =>
      all.flatMap((before) =>
        settings.map(({ label, apply }) => ({
          label: before.label === '' ? label : `${before.label}_${label}`,
          apply: (recipe: Tree) => apply(before.apply(recipe)),
        })),
      ),
    [{ label: '', apply: (recipe) => recipe }],
  );
}

/** What the runs of a recipe are evaluated on: held-out texts first. */
function tasksOf(recipe: AnyRecipe): NonNullable<Sweep['task']>[] {
  if (recipe.kind === 'image-text') return [];
  const texts = recipe.kind === 'language' ? Object.keys(recipe.data.heldOut) : [];
  return [
    ...texts.map((name) => ({ name, kind: 'texts' as const })),
    ...(recipe.evaluation.tasks.length === 0 ? [] : chooseTasks(recipe.evaluation.tasks).tasks).map(
      (questions) => ({ name: questions.task, kind: 'questions' as const, questions }),
    ),
  ];
}

/** The sweep file itself, checked, with the recipe that all runs share. */
function readSweep(
  source: string | SweepInput,
  options: LoadSweepOptions,
): { where: string; file: z.output<typeof sweepSchema>; base: Tree } {
  const where = typeof source === 'string' ? source : 'the sweep';
  const tree = typeof source === 'string' ? readYaml(source, 'sweep') : source;
  const parsed = sweepSchema.safeParse(tree);
  if (!parsed.success)
    fail('ERR_LIBMOE_RECIPE', `${where}: ${explainIssues(sweepSchema, parsed.error.issues, tree)}`);
  const given = parsed.data.base;
  const folder = typeof source === 'string' ? path.dirname(source) : '.';
  const whole = typeof given === 'string' ? readRecipe(path.resolve(folder, given)) : given;
  const { smoke, ...base } = whole;
  const sized = options.smoke ? merged(base, (smoke as Tree | undefined) ?? {}) : base;
  return { where, file: parsed.data, base: merged(sized, options.changes ?? {}) };
}

/** {@link loadSweep} after importing the files that the base recipe's `imports` names. */
export async function openSweep(source: string | SweepInput, options: LoadSweepOptions = {}): Promise<Sweep> {
  await importModulesOf(readSweep(source, options).base);
  return loadSweep(source, options);
}

/**
 * Reads and checks a sweep with the recipes of all its runs.
 * @param source a YAML file, or an object
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE naming every wrong key of the sweep, or the first run whose recipe is wrong
 */
export function loadSweep(source: string | SweepInput, options: LoadSweepOptions = {}): Sweep {
  const { where, file, base } = readSweep(source, options);
  const { name, axes, compare, notes, checkpoints } = file;
  const settings = new Map(
    Object.entries(axes).map(([axis, given]) => [axis, settingsOf(axis, given, base, where)]),
  );
  const seedAxis = settings.get('seed') ?? settingsOf('seed', [base.seed ?? 42], base, where);
  const variants = combinations([...settings].filter(([axis]) => axis !== 'seed').map(([, each]) => each));
  if (variants.length === 1 && variants[0]!.label === '') variants[0]!.label = name;
  const twice = repeated(variants.map(({ label }) => label));
  if (twice !== undefined)
    fail(
      'ERR_LIBMOE_RECIPE',
      `${where}: two variants are called "${twice}": labels of several axes are joined by "_", so use variants: { name: changes } with other names`,
    );
  const seeds = seedAxis.map(({ label }) => {
    if (!/^\d+$/.test(label)) fail('ERR_LIBMOE_RECIPE', `${where}: axes.seed: "${label}" is no seed`);
    return Number(label);
  });
  const runs = variants.flatMap(({ label, apply }) =>
    seedAxis.map((seed, i): SweepRun => {
      const folder = `${label}/${seeds[i]}`;
      const all = seed.apply(apply(base));
      try {
        const recipe = loadAnyRecipe({ ...all, name: `${label}-${seeds[i]}` } as AnyRecipeInput);
        checkBestMetric(recipe);
        return {
          variant: label,
          seed: seeds[i]!,
          folder,
          recipe,
        };
      } catch (error) {
        const message = (error as Error).message.replace(/^ERR_\w+: the recipe: /, '');
        return fail('ERR_LIBMOE_RECIPE', `${where}, run ${folder}: ${message}`, error);
      }
    }),
  );
  const labels = variants.map(({ label }) => label);
  const known = (kind: string, given: string, all: readonly string[]): string => {
    if (all.includes(given)) return given;
    const near = nearestKey(given, all);
    return fail(
      'ERR_LIBMOE_RECIPE',
      `${where}: ${kind}: there is no "${given}"${near ? `, did you mean "${near}"?` : ` (known: ${all.join(', ')})`}`,
    );
  };
  for (const noted of Object.keys(notes)) known('notes', noted, labels);
  const tasks = tasksOf(runs[0]!.recipe);
  const wanted =
    compare.task &&
    known(
      'compare.task',
      compare.task,
      tasks.map((task) => task.name),
    );
  const task = wanted === undefined ? tasks[0] : tasks.find((each) => each.name === wanted);
  const usual = task === undefined ? 'trainingLoss' : task.kind === 'texts' ? 'finalLoss' : 'accuracy';
  return {
    name,
    variants: labels,
    seeds,
    runs,
    baseline: known('compare.baseline', compare.baseline ?? labels[0]!, labels),
    task,
    metric: compare.metric ?? usual,
    columns: compare.columns ?? sweepMetrics,
    notes,
    checkpoints,
  };
}
