import { readFileSync } from 'node:fs';
import { codeOf, type ErrorCode, fail } from '../native/index.ts';

/** What JSON can hold: the type of every state that goes into a checkpoint. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };
/** A JSON value with keys. */
export type JsonObject = { [key: string]: JsonValue };

/**
 * Parses `text`; a mistake is reported as `<source>:<line>:<column>` with what was expected there.
 * Throws ERR_LIBMOE_FILE (or `code`).
 */
export function parseJson(text: string, source: string, code: ErrorCode = 'ERR_LIBMOE_FILE'): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (cause) {
    // V8 names the position only for some mistakes and some versions of Node, so a second, slower pass looks for it.
    const { offset, reason } = locateMistake(text);
    const before = text.slice(0, offset);
    const line = before.split('\n').length;
    const column = offset - before.lastIndexOf('\n');
    fail(code, `${source}:${line}:${column} is not valid JSON: ${reason}`, cause);
  }
}

/** Reads a JSON file. Throws ERR_LIBMOE_FILE (or `code`) when it is missing, unreadable or not valid JSON. */
export function readJson(path: string, code: ErrorCode = 'ERR_LIBMOE_FILE'): JsonValue {
  return parseJson(readText(path, code), path, code);
}

/** Like {@link readJson}, for files whose top level must be an object. */
export function readJsonObject(path: string, code: ErrorCode = 'ERR_LIBMOE_FILE'): JsonObject {
  const value = readJson(path, code);
  if (!isJsonObject(value)) fail(code, `${path} must hold a JSON object, got ${describeJson(value)}`);
  return value;
}

/** Reads a UTF-8 text file. Throws ERR_LIBMOE_FILE (or `code`) naming the file and the reason. */
export function readText(path: string, code: ErrorCode = 'ERR_LIBMOE_FILE'): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    fail(code, `cannot read ${path} (${reasonOf(cause)})`, cause);
  }
}

/** Whether a value is an object, neither null nor a list. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** "an array", "null", "a string": for messages that say what came instead of what was expected. */
export function describeJson(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** One line that says why a file operation failed: the system's code where there is one. */
export function reasonOf(cause: unknown): string {
  if (codeOf(cause) !== undefined) return (cause as Error).message;
  const code = (cause as { code?: unknown } | null)?.code;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EISDIR') return 'it is a folder';
  return typeof code === 'string' ? code : cause instanceof Error ? cause.message : String(cause);
}

interface Mistake {
  offset: number;
  reason: string;
}

/** Walks through a text that JSON.parse refused and stops where the grammar breaks. */
function locateMistake(text: string): Mistake {
  let at = 0;
  const stop = (reason: string, offset = at): never => {
    throw { offset, reason } satisfies Mistake;
  };
  const expected = (what: string): never =>
    stop(
      at >= text.length ? `expected ${what}, got the end of the text` : `expected ${what}, got "${text[at]}"`,
    );
  const skip = () => {
    while (at < text.length && ' \t\r\n'.includes(text[at]!)) at++;
  };
  const match = (pattern: RegExp): boolean => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (!found) return false;
    at += found[0].length;
    return true;
  };
  const string = () => {
    const start = at;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids exactly these inside strings
    if (match(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y)) return;
    if (text[at] !== '"') expected('a string');
    stop('a string that does not end, or holds a bad escape or a control character', start);
  };
  const list = (close: string, item: () => void) => {
    at++;
    skip();
    if (text[at] === close) {
      at++;
      return;
    }
    for (;;) {
      item();
      skip();
      if (text[at] === close) {
        at++;
        return;
      }
      if (text[at] !== ',') expected(`"," or "${close}"`);
      at++;
      skip();
    }
  };
  const value = (): void => {
    skip();
    const c = text[at];
    if (c === '{') {
      list('}', () => {
        string();
        skip();
        if (text[at] !== ':') expected('":"');
        at++;
        value();
      });
    } else if (c === '[') list(']', value);
    else if (c === '"') string();
    else if (!match(/(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)/y)) expected('a value');
  };
  try {
    value();
    skip();
    if (at < text.length) expected('the end of the text');
  } catch (mistake) {
    if (typeof (mistake as Mistake).offset === 'number') return mistake as Mistake;
    throw mistake;
  }
  return { offset: at, reason: 'not accepted by the parser' };
}
