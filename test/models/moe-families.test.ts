import { describe } from 'vitest';
import { familyAgrees } from './family-agrees.ts';

describe.each(['olmoe', 'qwen2-moe', 'qwen3-moe', 'llama4'])('%s', familyAgrees);
