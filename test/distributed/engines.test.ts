import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { FoundEngine } from '../../ts/distributed/engines.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { hasMpirun, standInNccl } from './ranks.ts';

const folder = temporaryFolder();
const engines = pathToFileURL(path.resolve(import.meta.dirname, '../../dist/distributed/engines.js')).href;

/** In a process of its own: a library that opened stays open. */
function found(name: 'findNccl' | 'findMpi', env: Record<string, string>): FoundEngine {
  const program = `import { ${name} } from ${JSON.stringify(engines)}; console.log(JSON.stringify(${name}()));`;
  const { PATH = '' } = process.env;
  const text = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    env: { PATH, HOME: folder, ...env },
  });
  return JSON.parse(text) as FoundEngine;
}

describe('NCCL', () => {
  it('is what LIBMOE_NCCL names, and nothing else', () => {
    const library = standInNccl();
    expect(found('findNccl', { LIBMOE_NCCL: library })).toEqual({
      available: true,
      reason: null,
      path: library,
      version: '2.27.3',
      standIn: true,
    });
    expect(found('findNccl', { LIBMOE_NCCL: '/nowhere' })).toMatchObject({
      available: false,
      path: null,
      reason: expect.stringContaining('LIBMOE_NCCL: /nowhere'),
    });
  });

  it('is found in the site-packages of an environment and of the python3 on PATH', () => {
    const at = (prefix: string) => {
      const lib = path.join(folder, prefix, 'lib/python3.11/site-packages/nvidia/nccl/lib');
      mkdirSync(lib, { recursive: true });
      symlinkSync(standInNccl(), path.join(lib, 'libnccl.so.2'));
      return path.join(folder, prefix);
    };
    const [active, onPath] = [at('active'), at('on-path')];
    mkdirSync(path.join(onPath, 'bin'));
    symlinkSync('/bin/true', path.join(onPath, 'bin/python3'));
    symlinkSync('/dev/null', path.join(onPath, 'pyvenv.cfg'));
    expect(found('findNccl', { VIRTUAL_ENV: active }).path).toContain(path.join(active, 'lib'));
    expect(found('findNccl', { PATH: path.join(onPath, 'bin') }).path).toContain(path.join(onPath, 'lib'));
    rmSync(active, { recursive: true });
  });

  it('says which version is too old, and what is no NCCL', () => {
    expect(found('findNccl', { LIBMOE_NCCL: standInNccl(), STAND_IN_NCCL_VERSION: '2804' })).toMatchObject({
      available: false,
      version: '2.8.4',
      reason: expect.stringContaining('2.18.0 or newer is needed'),
    });
    const other = ['/lib/x86_64-linux-gnu/libm.so.6', '/lib64/libm.so.6'].find(existsSync);
    if (!other) throw new Error('this system has no libm.so.6 where it was looked for');
    expect(found('findNccl', { LIBMOE_NCCL: other }).reason).toMatch(
      /is no NCCL that can be used: it lacks ncclGetVersion, ncclGetUniqueId/,
    );
  });

  const real = process.env.LIBMOE_TEST_NCCL;
  it.skipIf(!real)('is the real one of LIBMOE_TEST_NCCL, with every symbol', () => {
    expect(found('findNccl', { LIBMOE_NCCL: real! })).toMatchObject({
      available: true,
      reason: null,
      standIn: false,
      version: expect.stringMatching(/^2\.\d+\.\d+$/),
    });
  });
  if (!real) console.log('skipped: the symbols of a real NCCL, set LIBMOE_TEST_NCCL to a libnccl.so.2');
});

describe('MPI', () => {
  it.skipIf(!hasMpirun())('is found through the shim beside the binary', () => {
    expect(found('findMpi', {})).toMatchObject({
      available: true,
      reason: null,
      path: expect.stringMatching(/\/libmoe_mpi\.so$/),
      version: expect.stringContaining('Open MPI'),
    });
  });
  if (!hasMpirun()) console.log('skipped: the MPI of this machine, there is none');

  it('says what is missing', () => {
    expect(found('findMpi', { LIBMOE_MPI: '/nowhere' })).toMatchObject({
      available: false,
      reason: expect.stringMatching(/LIBMOE_MPI: \/nowhere: .*CPU ranks need Open MPI 4 or 5/),
    });
  });
});
