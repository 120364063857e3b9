import type { Architecture } from './architecture.ts';
import { Fields } from './fields.ts';

/** Any model of ours that no other family describes, under our own parameter names; its configuration is the `libmoe` block. */
export const libmoe: Architecture = {
  name: 'LibMoeForCausalLM',
  modelType: 'libmoe',
  read(json, source) {
    return new Fields(json, source).wrong(
      `"architectures" says ${libmoe.name}, but the "libmoe" block is missing`,
    );
  },
  needs: () => [],
  write: () => ({}),
  fileTensors: (name, shape) => [{ name, shape }],
  ignorable: () => false,
};
