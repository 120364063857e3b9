import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { recoverFolder, writeFileAtomically, writeFolderAtomically } from '../../ts/storage/atomic.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();
const host = hostname().replace(/[^A-Za-z0-9]/g, '') || 'host';
/** No process has this id: Linux gives at most 2^22. */
const nobody = 2 ** 22 + 12345;

describe('writeFileAtomically', () => {
  it('makes folders, writes, replaces', () => {
    const path = join(root, 'a/b/file.txt');
    writeFileAtomically(path, 'one');
    writeFileAtomically(path, new TextEncoder().encode('two'));
    expect(readFileSync(path, 'utf8')).toBe('two');
    expect(readdirSync(join(root, 'a/b'))).toEqual(['file.txt']);
  });

  it('keeps the old file and leaves nothing behind when writing fails', () => {
    const path = join(root, 'kept.txt');
    writeFileAtomically(path, 'old');
    expect(() =>
      writeFileAtomically(path, () => {
        throw new Error('no more');
      }),
    ).toThrow('no more');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(readdirSync(root).filter((name) => name.includes('kept'))).toEqual(['kept.txt']);
  });

  it('names the file that it cannot write', () => {
    writeFileAtomically(join(root, 'plain'), '');
    expect(() => writeFileAtomically(join(root, 'plain/below'), 'x')).toThrow(
      /ERR_LIBMOE_FILE: cannot write .*plain\/below/,
    );
  });

  it('removes temporaries of dead processes and old ones, not those of living ones or of other files', () => {
    const folder = join(root, 'leftovers');
    mkdirSync(folder);
    const dead = `.x.tmp-${host}-${nobody}-0-00000000`;
    const living = `.x.tmp-${host}-${process.ppid}-0-00000000`;
    const elsewhere = '.x.tmp-elsewhere-1-0-00000000';
    const forgotten = '.x.tmp-elsewhere-1-0-11111111';
    const other = `.x.y.tmp-${host}-${nobody}-0-00000000`;
    for (const name of [dead, living, elsewhere, forgotten, other]) writeFileSync(join(folder, name), '');
    utimesSync(join(folder, forgotten), 0, 0);
    writeFileAtomically(join(folder, 'x'), '');
    expect(readdirSync(folder).sort()).toEqual([elsewhere, living, other, 'x'].sort());
  });
});

describe('writeFolderAtomically', () => {
  it('makes and replaces a folder as a whole', async () => {
    const path = join(root, 'folder');
    await writeFolderAtomically(path, (temporary) => {
      mkdirSync(join(temporary, 'deep'));
      writeFileSync(join(temporary, 'deep/a'), '1');
      expect(existsSync(path)).toBe(false);
    });
    await writeFolderAtomically(path, async (temporary) => {
      await setTimeout(1);
      writeFileSync(join(temporary, 'b'), '2');
      expect(readFileSync(join(path, 'deep/a'), 'utf8')).toBe('1');
    });
    expect(readdirSync(path)).toEqual(['b']);
    expect(readdirSync(root).filter((name) => name.startsWith('.folder'))).toEqual([]);
  });

  it('keeps the old folder when filling fails', async () => {
    const path = join(root, 'stays');
    await writeFolderAtomically(path, (temporary) => writeFileSync(join(temporary, 'a'), '1'));
    const failing = writeFolderAtomically(path, () => Promise.reject(new Error('half way')));
    await expect(failing).rejects.toThrow('half way');
    expect(readdirSync(path)).toEqual(['a']);
    expect(readdirSync(root).filter((name) => name.startsWith('.stays'))).toEqual([]);
  });

  it('brings back the folder that a crash between the two renames left set aside', async () => {
    const path = join(root, 'aside');
    await writeFolderAtomically(path, (temporary) => writeFileSync(join(temporary, 'a'), 'old'));
    renameSync(path, join(root, `.aside.old-${host}-${nobody}-0-00000000`));
    recoverFolder(path);
    expect(readFileSync(join(path, 'a'), 'utf8')).toBe('old');
  });

  it('leaves the old or the new content when the process is killed at any moment', {
    timeout: 60_000,
  }, async () => {
    const path = join(root, 'killed');
    const source = fileURLToPath(new URL('../../ts/storage/atomic.ts', import.meta.url));
    // Type stripping is not in every supported Node, so the child gets plain JavaScript.
    const script = join(root, 'writer.mjs');
    writeFileSync(script, await bundle(source));
    const kept = new Set<string>();
    let period = 0; // how long one folder takes here: fsync may cost a millisecond or a hundred
    for (let round = 0; round < 8; round += 1) {
      const child = spawn(process.execPath, [script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      await once(child.stdout, 'data');
      const start = performance.now();
      if (round === 0) await once(child.stdout, 'data');
      if (round === 0) period = performance.now() - start;
      else await setTimeout((round * period * 2) / 8);
      child.kill('SIGKILL');
      await once(child, 'exit');
      recoverFolder(path);
      const names = readdirSync(path).sort();
      const contents = new Set(names.map((name) => readFileSync(join(path, name), 'utf8')));
      expect(names).toEqual(['0', '1', '2', '3', '4']);
      expect(contents.size).toBe(1);
      kept.add([...contents][0]!.slice(0, 20));
    }
    expect(kept.size).toBeGreaterThan(1);
    await writeFolderAtomically(path, (temporary) => writeFileSync(join(temporary, 'last'), ''));
    expect(readdirSync(root).filter((name) => name.startsWith('.killed'))).toEqual([]);
  });

  it("refuses '', which Node takes for the current folder", async () => {
    const here = process.cwd();
    const place = join(root, 'mine');
    mkdirSync(place);
    writeFileSync(join(place, 'thesis.tex'), 'years');
    process.chdir(place); // what goes wrong must not go wrong in the repository
    try {
      await expect(writeFolderAtomically('', () => {})).rejects.toThrow(
        /ERR_LIBMOE_ARGUMENT: expected a path/,
      );
      expect(() => writeFileAtomically('', 'text')).toThrow(/ERR_LIBMOE_ARGUMENT: expected a path/);
    } finally {
      process.chdir(here);
    }
    expect(readdirSync(place)).toEqual(['thesis.tex']);
  });
});

/** A script that rewrites the folder for ever, each time with five files of one content. */
async function bundle(atomic: string): Promise<string> {
  const typescript = await import('typescript');
  const { transpileModule, ModuleKind, ScriptTarget } = typescript.default ?? typescript;
  const plain = (file: string) =>
    transpileModule(readFileSync(file, 'utf8'), {
      compilerOptions: { module: ModuleKind.ESNext, target: ScriptTarget.ES2022, verbatimModuleSyntax: true },
    }).outputText.replace(/^import .*'\.\.?\/.*;$/gm, '');
  return `
    const codeOf = () => undefined;
    const fail = (code, message) => { throw new Error(code + message); };
    const reasonOf = (cause) => cause.message;
    ${plain(atomic)}
    import { writeFileSync as put } from 'node:fs';
    for (let i = 0; ; i += 1) {
      await writeFolderAtomically(process.argv[2], async (temporary) => {
        const text = (process.pid + '-' + i + ' ').padEnd(20).repeat(2000);
        for (let k = 0; k < 5; k += 1) { put(join(temporary, String(k)), text); await null; }
      });
      process.stdout.write('.');
    }`;
}
