import type { Handle } from './tensors.ts';

/** native/binding/embedding.cpp. */
export interface EmbeddingNative {
  embedding(weight: Handle, ids: Handle, y: Handle): void;
  embeddingBackward(dy: Handle, ids: Handle, dweight: Handle, accumulate: boolean): void;
}
