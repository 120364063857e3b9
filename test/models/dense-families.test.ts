import { describe } from 'vitest';
import { familyAgrees } from './family-agrees.ts';

describe.each(['llama3', 'mistral', 'qwen2', 'qwen3', 'phi3', 'gpt2'])('%s', familyAgrees);
