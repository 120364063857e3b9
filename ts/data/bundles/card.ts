import { parse } from 'yaml';
import { isJsonObject, readText } from '../../storage/json.ts';
import type { SourceTree } from './sources.ts';

/** What the card of a hub data set says about its files. */
export interface DataCard {
  file?: string;
  /** The folder that its patterns are relative to. */
  root?: string;
  license?: string;
  configs: { config: string; split: string; patterns: string[] }[];
}

/** The YAML in front of a README.md at the top of a source; an empty card where there is none, or none that can be read. */
export function readCard(tree: SourceTree): DataCard {
  const file = tree.files.find(({ name }) => name === 'README.md');
  if (file === undefined) return { configs: [] };
  const front = /^---\r?\n([\s\S]*?)\r?\n---/.exec(readText(file.path))?.[1];
  let content: unknown;
  try {
    content = parse(front ?? '');
  } catch {
    // A card is written by hand and for people: what it says wrongly it does not say.
    content = undefined;
  }
  if (!isJsonObject(content)) return { configs: [] };
  const license = Array.isArray(content.license) ? content.license.join(', ') : content.license;
  const configs: DataCard['configs'] = [];
  for (const entry of Array.isArray(content.configs) ? content.configs : []) {
    if (!isJsonObject(entry)) continue;
    const config = typeof entry.config_name === 'string' ? entry.config_name : 'default';
    const { data_files: files } = entry;
    const list =
      Array.isArray(files) && files.every(isJsonObject) ? files : [{ split: 'train', path: files }];
    for (const each of list) {
      const patterns = [each.path].flat().filter((path) => typeof path === 'string');
      if (typeof each.split === 'string' && patterns.length > 0)
        configs.push({ config, split: each.split, patterns });
    }
  }
  return {
    file: file.path,
    root: file.root,
    ...(typeof license === 'string' && { license }),
    configs,
  };
}
