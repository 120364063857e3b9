// The libraries that move tensors between ranks. Nothing is linked: they are looked for when they are needed, or when `inspect` asks.
import { readdirSync, realpathSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { type CollectiveLibrary, native } from '../native/index.ts';

type Variables = Readonly<Record<string, string | undefined>>;

/** An engine as it was found. */
export interface FoundEngine {
  available: boolean;
  /** Why it is not available. */
  reason: string | null;
  /** The file; null where none was found. */
  path: string | null;
  version: string | null;
  /** The tests' own NCCL, which works on host memory. */
  standIn: boolean;
}

const found = ({ path, version, reason, standIn }: CollectiveLibrary, why = reason): FoundEngine => ({
  available: reason === '',
  reason: why || null,
  path: reason === '' || version ? path : null,
  version: version || null,
  standIn,
});

/** Looks for NCCL: `LIBMOE_NCCL` alone if it is set; else the loader's path, then the site-packages of Python. */
export function findNccl(variables: Variables = process.env): FoundEngine {
  if (process.platform !== 'linux')
    return {
      available: false,
      reason: `there is no NCCL for ${process.platform}`,
      path: null,
      version: null,
      standIn: false,
    };
  const own = variables.LIBMOE_NCCL;
  if (own) {
    const library = native().openNccl(own);
    return found(library, library.reason && `LIBMOE_NCCL: ${library.reason}`);
  }
  const unusable: CollectiveLibrary[] = [];
  const files = [
    'libnccl.so.2',
    ...sitePackages(variables).map((at) => path.join(at, 'nvidia/nccl/lib/libnccl.so.2')),
  ];
  for (const [i, file] of files.entries()) {
    if (i > 0 && !exists(file)) continue;
    const library = native().openNccl(file);
    if (library.reason === '') return found(library);
    unusable.push(library);
  }
  // What is there and does not fit says more than a place where there is nothing.
  const nearest = unusable.find(({ version }) => version !== '') ?? unusable.slice(1)[0];
  if (nearest) return found(nearest);
  return found(
    unusable[0]!,
    'libnccl.so.2 was found neither on the library path nor in the site-packages of Python: pip install nvidia-nccl-cu13, or set LIBMOE_NCCL to the file',
  );
}

/** Looks for MPI: the shim at `LIBMOE_MPI`, else beside the binary, and the Open MPI that it needs. */
export function findMpi(variables: Variables = process.env): FoundEngine {
  const library = native().openMpi(variables.LIBMOE_MPI ?? '');
  return found(
    library,
    library.reason && variables.LIBMOE_MPI ? `LIBMOE_MPI: ${library.reason}` : library.reason,
  );
}

/** The folders where Python installs packages: of the active environment, of the python3 on PATH, of the user, of the system. */
function sitePackages(variables: Variables): string[] {
  const prefixes = [
    variables.VIRTUAL_ENV,
    variables.CONDA_PREFIX,
    pythonPrefix(variables.PATH),
    path.join(homedir(), '.local'),
    '/usr/local',
    '/usr',
  ];
  const folders = prefixes.flatMap((prefix) => {
    if (!prefix) return [];
    const versions = list(path.join(prefix, 'lib')).filter((name) => /^python3(\.\d+)?$/.test(name));
    return versions.flatMap((version) =>
      ['site-packages', 'dist-packages'].map((packages) => path.join(prefix, 'lib', version, packages)),
    );
  });
  return [...new Set(folders)];
}

function pythonPrefix(searchPath = ''): string | undefined {
  for (const folder of searchPath.split(path.delimiter)) {
    const python = path.join(folder, 'python3');
    // A virtual environment's python3 is a link out of it: the folder counts, not where the link leads.
    if (folder && exists(python))
      return path.dirname(
        exists(path.join(folder, '../pyvenv.cfg')) ? folder : path.dirname(realpathSync(python)),
      );
  }
  return undefined;
}

const exists = (file: string): boolean => statSync(file, { throwIfNoEntry: false }) !== undefined;

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
