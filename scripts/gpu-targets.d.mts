export interface StageResult {
  device?: { name: string; computeCapability: string; emulated?: boolean };
  kernels?: number;
  bench?: { results: object[] };
  peaks?: {
    mmaSyncTflops: number;
    copyGigabytes: number;
    combine: { name: string; orderedSeconds: number; atomicSeconds: number }[];
  };
  profiles?: Record<string, { name: string; nanoseconds: number }[]>;
}
export interface Target {
  target: string;
  layer: string;
  value?: number;
  required?: string;
  met?: boolean;
  note?: string;
}
export function kernelTimes(csv: string): { name: string; nanoseconds: number }[];
export function targets(results: readonly StageResult[]): Target[];
export function table(rows: readonly Target[]): string;
