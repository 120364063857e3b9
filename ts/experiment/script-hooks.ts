// Module hooks of `libmoe run`, of `--import` and of a recipe's `imports`, executed in Node's loader thread.
import { readFile } from 'node:fs/promises';
import type { LoadHook, ResolveHook } from 'node:module';
import { fileURLToPath } from 'node:url';

const major = Number(process.versions.node.split('.')[0]);
const nodeStripsTypes = major >= 24;

/** A script outside any project still finds the libmoe that runs it. */
export const resolve: ResolveHook = async (specifier, context, next) => {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (specifier !== 'libmoe') throw error;
    return { url: new URL('../index.js', import.meta.url).href, shortCircuit: true };
  }
};

export const load: LoadHook = async (url, context, next) => {
  if (nodeStripsTypes || !url.startsWith('file:') || !/\.m?ts$/.test(new URL(url).pathname))
    return next(url, context);
  const { default: ts } = await import('typescript');
  const fileName = fileURLToPath(url);
  const { outputText } = ts.transpileModule(await readFile(fileName, 'utf8'), {
    fileName,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022, // lowers `using`
      module: ts.ModuleKind.ESNext,
      inlineSourceMap: true,
      verbatimModuleSyntax: true,
    },
  });
  return { format: 'module', source: outputText, shortCircuit: true };
};
