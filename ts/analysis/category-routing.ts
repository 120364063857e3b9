import { normalisedEntropy } from './routing.ts';

/** What a MoE layer did with the rows of one category, as a routing record has it. */
export interface CategoryChoices {
  layer: string;
  category: string;
  /** Router outputs that rows were sent to; −1: nowhere. */
  experts: ArrayLike<number>;
  /** How many outputs the router has, where that is known. */
  outputs?: number | undefined;
}

/** The load of one layer, by category. */
export interface CategoryLoad {
  layer: string;
  experts: number;
  categories: {
    category: string;
    /** Choices in all. */
    choices: number;
    /** Share of the choices per expert, `[experts]`; sums to 1. */
    load: number[];
  }[];
  /**
   * What an expert tells of the category, in bits, every category counting alike: 0 where all categories are sent alike, log₂ of their number where each
   * has experts of its own (the Jensen-Shannon divergence of their loads).
   */
  information: number;
}

/** Load of every layer by category, layers in order, categories in that of their first record. */
export function loadByCategory(records: Iterable<CategoryChoices>): CategoryLoad[] {
  const layers = new Map<string, Map<string, number[]>>();
  const sizes = new Map<string, number>();
  for (const { layer, category, experts, outputs = 0 } of records) {
    const categories = layers.get(layer) ?? new Map<string, number[]>();
    layers.set(layer, categories);
    const counts = categories.get(category) ?? [];
    categories.set(category, counts);
    for (let i = 0; i < experts.length; i++) {
      const expert = experts[i]!;
      if (expert >= 0) counts[expert] = (counts[expert] ?? 0) + 1;
    }
    sizes.set(layer, Math.max(sizes.get(layer) ?? 0, outputs, counts.length));
  }
  return [...layers]
    .sort(([a], [b]) => orderOf(a) - orderOf(b))
    .map(([layer, byCategory]) => {
      const experts = sizes.get(layer)!;
      const categories = [...byCategory].map(([category, counts]) => {
        const all = Array.from({ length: experts }, (_, e) => counts[e] ?? 0);
        const choices = all.reduce((a, b) => a + b, 0);
        return { category, choices, load: all.map((count) => (choices === 0 ? 0 : count / choices)) };
      });
      return { layer, experts, categories, information: informationOf(categories.map(({ load }) => load)) };
    });
}

/** Layers of a tower by depth, then the projector, then the language model's. */
function orderOf(layer: string): number {
  const [, part, depth] = /^(?:(\w+)\.)?(\d+)$/.exec(layer) ?? [];
  if (depth === undefined) return 1e6;
  return (part === undefined ? 2e6 : 0) + Number(depth);
}

/** Entropy of the mean load less the mean entropy of the loads, in bits. */
function informationOf(loads: readonly (readonly number[])[]): number {
  const used = loads.filter((load) => load.some((share) => share > 0));
  const experts = used[0]?.length ?? 0;
  if (experts < 2) return 0;
  const bits = (load: readonly number[]): number => normalisedEntropy(load) * Math.log2(experts);
  const mean = Array.from(
    { length: experts },
    (_, e) => used.reduce((sum, load) => sum + load[e]!, 0) / used.length,
  );
  return Math.max(0, bits(mean) - used.reduce((sum, load) => sum + bits(load), 0) / used.length);
}
