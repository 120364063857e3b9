import { describe } from 'vitest';
import { familyAgrees } from './family-agrees.ts';

describe.each(['olmoe', 'qwen2-moe', 'qwen3-moe'])('%s', familyAgrees);
// Of make_deepseek.py.
describe.each(['deepseek-v2', 'deepseek-v2-groups', 'deepseek-v3', 'deepseek-v3-halves'])('%s', familyAgrees);
