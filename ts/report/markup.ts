/** HTML that is safe to insert as it is. */
export class Markup {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

type Insertable = string | number | Markup | undefined | readonly Insertable[];

/** Text with the marks of HTML escaped. */
export function escapeHtml(text: string): string {
  const marks: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (mark) => marks[mark] ?? mark);
}

/** Template tag: everything inserted is escaped unless it is {@link Markup}; lists are joined, undefined is nothing. */
export function html(parts: TemplateStringsArray, ...values: Insertable[]): Markup {
  return new Markup(parts.map((part, i) => part + (i < values.length ? insert(values[i]) : '')).join(''));
}

function insert(value: Insertable): string {
  if (value === undefined) return '';
  if (value instanceof Markup) return value.text;
  if (typeof value === 'string' || typeof value === 'number') return escapeHtml(String(value));
  return value.map(insert).join('');
}
