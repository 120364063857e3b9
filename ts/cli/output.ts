/** Prints the one object that `--json` promises on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Progress and logs: stderr, so that stdout stays machine-readable. */
export function log(line: string): void {
  // On a terminal the status line may stand where this line begins.
  process.stderr.write(`${process.stderr.isTTY ? '\r\x1b[K' : ''}${line}\n`);
}

/** What is to be known of an evaluation's numbers. */
export function logWarnings(warnings: Readonly<Record<string, readonly string[]>> = {}): void {
  for (const [task, lines] of Object.entries(warnings))
    for (const line of lines) log(`warning: ${task}: ${line}`);
}

/** Rows under a header, columns padded; numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [header, ...rows].map((row) => row.map(String));
  const widths = header.map((_, column) => Math.max(...cells.map((row) => [...(row[column] ?? '')].length)));
  const numeric = header.map(
    (_, column) =>
      rows.length > 0 &&
      rows.every((row) => /^[-+−]?[\d.,]+( ?[a-zA-Z%×/]+)?$|^$|^–$/.test(String(row[column] ?? ''))),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => {
        const padding = ' '.repeat(widths[column]! - [...cell].length);
        return numeric[column] ? padding + cell : cell + padding;
      })
      .join('  ')
      .trimEnd();
  return [line(cells[0]!), widths.map((w) => '─'.repeat(w)).join('  '), ...cells.slice(1).map(line)].join(
    '\n',
  );
}
