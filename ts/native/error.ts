/** A stable name that callers may test for; the message says what was expected, what came and what to do. */
export type ErrorCode = `ERR_LIBMOE_${string}`;

/** The one error class of the library. `message` begins with the code, so that a log line alone is enough to search for. */
export class LibmoeError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message.startsWith(code) ? message : `${code}: ${message}`, options);
    this.name = 'LibmoeError';
    this.code = code;
  }
}

/** Throws a {@link LibmoeError}; usable as an expression. */
export function fail(code: ErrorCode, message: string, cause?: unknown): never {
  throw new LibmoeError(code, message, cause === undefined ? undefined : { cause });
}

/** The code of a library error, whether it was thrown here or in the native part; undefined for any other value. */
export function codeOf(error: unknown): ErrorCode | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && code.startsWith('ERR_LIBMOE_') ? (code as ErrorCode) : undefined;
}
