// The MoE layers that benches measure.

/** T tokens, model size d, expert size f, E experts, k of them per token. */
export interface Shape {
  name: string;
  tokens: number;
  d: number;
  f: number;
  experts: number;
  topK: number;
  gated: boolean;
  activation: 'silu' | 'relu';
}

const swiglu = { gated: true, activation: 'silu' } as const;
const relu = { gated: false, activation: 'relu' } as const;

/** The shapes of the specification's CPU tables. */
export const cpuShapes: readonly Shape[] = [
  { name: 'A', tokens: 4096, d: 512, f: 1024, experts: 8, topK: 2, ...swiglu },
  { name: 'B', tokens: 2048, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
  { name: 'C512', tokens: 4096, d: 512, f: 128, experts: 66, topK: 8, ...relu },
  { name: 'D', tokens: 64, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
];

/** The layers of the specification's GPU table. A and B are above. */
export const gpuShapes: readonly Shape[] = [
  { name: '154M', tokens: 16384, d: 512, f: 128, experts: 66, topK: 8, ...relu },
  { name: '660M', tokens: 16384, d: 1024, f: 256, experts: 66, topK: 8, ...relu },
  { name: 'OLMoE', tokens: 16384, d: 2048, f: 1024, experts: 64, topK: 8, ...swiglu },
  { name: 'Qwen3', tokens: 32768, d: 2048, f: 768, experts: 128, topK: 8, ...swiglu },
];

/** Tries out scripts and peers; its times say nothing. */
export const toy: Shape = { name: 'toy', tokens: 96, d: 64, f: 32, experts: 6, topK: 2, ...swiglu };

/** Those that the targets of the GPU kernels are about, the toy for trying it out. */
export const targetShapes: readonly Shape[] = [
  ...gpuShapes,
  ...cpuShapes.filter(({ name }) => name === 'A' || name === 'B'),
  toy,
];

/** Shapes that only a GPU runs, or that only those who name it get. */
export const restricted = ({ name }: Shape): { gpuOnly?: boolean; onlyFor?: string } => ({
  ...(gpuShapes.some((s) => s.name === name) && { gpuOnly: true }),
  ...(name === toy.name && { onlyFor: toy.name }),
});
