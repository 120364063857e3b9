// Every operation on tensors, differentiable unless its page says otherwise: what the package exports as `ops`.
export * from './attention.ts';
export * from './elementwise.ts';
export * from './embedding.ts';
export * from './gating.ts';
export * from './gemm.ts';
export * from './grouped_ffn.ts';
export * from './image.ts';
export * from './loss.ts';
export * from './norm.ts';
export * from './optimizer.ts';
export * from './permutation.ts';
export * from './random.ts';
export * from './reduction.ts';
export * from './resize-pixels.ts';
export * from './rotary.ts';
export * from './shape.ts';
export * from './softmax.ts';
