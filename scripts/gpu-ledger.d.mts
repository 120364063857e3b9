export interface Entry {
  sha256?: string;
  depends?: string;
  device?: string;
  driver?: string;
  commit?: string;
  date?: string;
  log?: string;
  passed: string[];
  note?: string;
}
export interface Ledger {
  files: Record<string, Entry>;
}
export interface Result {
  commit: string;
  date: string;
  device: { name: string; driver: string; emulated: boolean };
  sources: Record<string, { sha256: string; depends: string }>;
  runs: { name: string; kernels: number; files: Record<string, string> }[];
}
export function sources(root?: string): string[];
export function fingerprint(source: string, root?: string): { sha256: string; depends: string };
export function familyOf(source: string, root?: string): string | undefined;
export function testsOf(source: string, root?: string): string[];
export function readLedger(root?: string): Ledger;
export function state(source: string, ledger: Ledger, root?: string): 'verified' | 'stale' | 'not yet run';
export function faults(ledger: Ledger, root?: string): string[];
export function recorded(ledger: Ledger, result: Result, log: string, root?: string): Ledger;
export function table(ledger: Ledger, root?: string): string;
export function features(text: string, ledger: Ledger, root?: string): string | undefined;
