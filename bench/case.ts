/** One thing to time. */
export interface BenchCase {
  /** `<family>/<shape>/<dtype>/<pass>`, stable: results are compared by it. */
  name: string;
  /** Floor of the work: floating-point operations and bytes that have to move. */
  flops: number;
  bytes: number;
  /** Makes inputs outside the timed part. */
  setup(): { run(): void; dispose(): void };
  /** Measure how far one call raises the process's resident memory, on both sides. */
  memory?: boolean;
  /** The same work in PyTorch: a script in bench/peers and what it is told. */
  peer?: { script: string; request: unknown };
}
