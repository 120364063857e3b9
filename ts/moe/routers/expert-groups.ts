import { z } from 'zod';
import { fail } from '../../native/index.ts';
import type { RouterPlace } from '../registry.ts';

/** What DeepSeek's routers have beside other routers' options. */
export const deepseekOptions = {
  /** Only the `kept` best of `count` equal groups of experts may be chosen from. */
  groups: z
    .strictObject({ count: z.number().int().positive(), kept: z.number().int().positive() })
    .optional(),
  /** Whether the balance loss is taken per sequence and averaged, or over the whole batch. */
  balanceOver: z.enum(['sequence', 'batch']).default('sequence'),
};
/** How experts are grouped, if they are. */
export type ExpertGroups = z.output<typeof deepseekOptions.groups>;

/** @throws ERR_LIBMOE_CONFIG unless the groups divide the experts and those kept hold `topK` of them */
export function checkGroups(router: string, groups: ExpertGroups, { experts, topK }: RouterPlace): void {
  if (!groups) return;
  const { count, kept } = groups;
  if (experts % count !== 0 || kept > count)
    fail(
      'ERR_LIBMOE_CONFIG',
      `router "${router}": groups.count ${count} must divide the ${experts} experts and groups.kept ${kept} not exceed it`,
    );
  if ((kept * experts) / count < topK)
    fail(
      'ERR_LIBMOE_CONFIG',
      `router "${router}": ${kept} groups of ${experts / count} experts hold fewer than topK ${topK}: raise groups.kept`,
    );
}
