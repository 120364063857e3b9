export const nativeFlags: string;
export const nativeSources: string[];
export function hashOf(paths: readonly string[], extra: string): Promise<string>;
export function upToDate(
  name: string,
  hash: string,
  proof: string,
  build: () => Promise<void>,
): Promise<void>;
export function whileNobodyBuilds(body: () => Promise<void>): Promise<void>;
