import { initProcessGroup, type LaunchEnvironment, launchEnvironment } from '../distributed/index.ts';
import { fail } from '../native/index.ts';
import type { DeviceName } from '../tensor/index.ts';
import { dataParallel, type Strategy, single } from '../training/index.ts';
import type { AnyRecipe } from './recipe.ts';

/** The ranks of a run, seen from one of them. */
export interface Ranks {
  strategy: Strategy;
  /** Leaves the others. */
  leave(): Promise<void>;
}

/** Which ranks a recipe wants, and which there are. @throws ERR_LIBMOE_CONFIG when these are not the same */
export function checkRanks(
  { strategy: { data } }: Pick<AnyRecipe, 'strategy'>,
  { rank, worldSize, launcher }: LaunchEnvironment = launchEnvironment(),
): void {
  if (data === worldSize) return;
  if (worldSize === 1)
    fail(
      'ERR_LIBMOE_CONFIG',
      `the recipe trains on ${data} ranks (strategy.data), and this is one process: start it with "libmoe launch --nproc ${data} -- train …", ` +
        'or train on one with --set strategy.data=1',
    );
  fail(
    'ERR_LIBMOE_CONFIG',
    `the recipe trains on ${data} rank${data === 1 ? '' : 's'} (strategy.data), and this is rank ${rank} of ${worldSize} from ${launcher}: ` +
      `--set strategy.data=${worldSize}, or start ${data}`,
  );
}

/** Of several ranks each takes its own GPU. */
export function deviceOfRank(device: string, { worldSize, localRank } = launchEnvironment()): DeviceName {
  return (worldSize > 1 && device.startsWith('cuda') ? `cuda:${localRank}` : device) as DeviceName;
}

/** Meets the other ranks. @throws as {@link checkRanks} and initProcessGroup */
export async function joinRanks(recipe: AnyRecipe): Promise<Ranks> {
  const { data, bucketMegabytes, timeout } = recipe.strategy;
  checkRanks(recipe);
  if (data === 1) return { strategy: single(), leave: async () => {} };
  const group = await initProcessGroup({ device: deviceOfRank(recipe.device), timeout });
  return {
    strategy: dataParallel(group, { bucketBytes: Math.ceil(bucketMegabytes * 2 ** 20) }),
    leave: () => group.dispose(),
  };
}
