type Results = Readonly<Record<string, readonly number[]>>;

/**
 * The difference of each result relative to its size, both as root mean squares: single elements may differ more, where rounding decides (at the
 * kink of a ReLU), what is systematic shows.
 */
export function differences(ours: Results, theirs: Results): Record<string, number> {
  const names = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])];
  return Object.fromEntries(
    names.map((name) => {
      const [a, b] = [ours[name], theirs[name]];
      if (!a || !b || a.length !== b.length) return [name, Number.POSITIVE_INFINITY];
      const difference = Math.hypot(...a.map((x, i) => x - b[i]!));
      return [name, difference === 0 ? 0 : difference / Math.hypot(...a)];
    }),
  );
}

/** Names what differs by more than `tolerance`; undefined when both sides computed the same. */
export function disagreement(ours: Results, theirs: Results, tolerance: number): string | undefined {
  const wrong = Object.entries(differences(ours, theirs)).filter(([, d]) => !(d <= tolerance));
  if (wrong.length === 0) return undefined;
  const list = wrong.map(([name, d]) => `${name} by ${d.toPrecision(2)}`).join(', ');
  return `results differ from ours by more than ${tolerance} of their size: ${list}`;
}
