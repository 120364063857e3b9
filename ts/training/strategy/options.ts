import { z } from 'zod';

/** How the ranks of a run train together, as recipes write it. */
export const strategyOptions = z.strictObject({
  /** Ranks that each have the whole model and train on their part of every batch; as many as the launcher starts. */
  data: z.number().int().positive().default(1),
  /** MiB of gradients that travel together while backward still runs. */
  bucketMegabytes: z.number().positive().default(25),
  /** Seconds that a rank may be late before all of them end; while rank 0 evaluates, it says every 20 s that it is there. */
  timeout: z.number().min(30).default(300),
});
