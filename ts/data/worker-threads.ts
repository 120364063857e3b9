import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, fail, packageRoot } from '../native/index.ts';

/** File and Node options of a worker that sits beside the module `url`, as .ts in a checkout under test and as .js in dist; `name` has no ending. */
export function workerEntry(name: string, url: string): { filename: string; execArgv: string[] } {
  const source = url.endsWith('.ts');
  return {
    filename: fileURLToPath(new URL(name + (source ? '.ts' : '.js'), url)),
    execArgv: source ? ['--import', typeStripping()] : [],
  };
}

/** Errors lose their code on the way between threads; the message still begins with it. */
export function restoreCode(error: unknown): never {
  const match = /^(ERR_LIBMOE_[A-Z_]+): (.*)$/s.exec((error as Error).message);
  if (match) fail(match[1] as ErrorCode, match[2]!, error);
  throw error;
}

/** A module that lets a thread import .ts files on every supported Node, with the compiler that a checkout has anyway. */
function typeStripping(): string {
  const compiler = createRequire(`${packageRoot}/package.json`).resolve('typescript');
  // Written so that it serves both ways in which Node takes hooks: in the thread (from 22.15) and, before that, beside it.
  const hooks = `
    import { readFileSync } from 'node:fs';
    import { createRequire } from 'node:module';
    const ts = createRequire(${JSON.stringify(compiler)})(${JSON.stringify(compiler)});
    export function load(url, context, next) {
      if (!url.endsWith('.ts')) return next(url, context);
      const { outputText } = ts.transpileModule(readFileSync(new URL(url), 'utf8'), {
        compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true },
      });
      return { format: 'module', source: outputText, shortCircuit: true };
    }`;
  const dataUrl = (code: string): string => `data:text/javascript,${encodeURIComponent(code)}`;
  const url = JSON.stringify(dataUrl(hooks));
  return dataUrl(`
    import module from 'node:module';
    if (module.registerHooks) module.registerHooks({ load: (await import(${url})).load });
    else module.register(${url});`);
}
