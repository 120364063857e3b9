/** A case made ready: its inputs exist. */
export interface Work {
  run(): void;
  dispose(): void;
  /** What one call computes, by name, thinned by `sampled` of inputs.ts: compared with the peer's before anything is timed. */
  results?(): Record<string, readonly number[]>;
  /** Bytes that the forward pass leaves for backward, weights not counted: held against the peer's. */
  saved?(): number;
}

/** One thing to time. */
export interface BenchCase {
  /** `<family>/<shape>/<dtype>/<pass>…`, stable: results are compared by it. */
  name: string;
  /** Floor of the work: floating-point operations and bytes that have to move. 0 operations: bytes are what counts. */
  flops: number;
  bytes: number;
  /** Too large for a processor: left out there. */
  gpuOnly?: boolean;
  /** Only chosen by a filter that has this word: toys that try out the scripts. */
  onlyFor?: string;
  /** Makes inputs outside the timed part. */
  setup(): Work;
  /** Largest difference from the peer's results that passes, relative to the size of each (root mean squares). */
  tolerance?: number;
  /** Measure how far the case raises the process's resident memory, on both sides. */
  memory?: boolean;
  /** The same work in PyTorch: a script in bench/peers and what it is told. */
  peer?: {
    script: string;
    request: unknown;
    /** The ways of the script on a GPU, each a peer of its own; default one, PyTorch as it comes. */
    gpuModes?: readonly string[];
  };
  /** What this case is measured against in the same rounds, in turn with it; and its floor of operations. */
  baseline?: { name: string; flops: number; setup(): Work };
}
