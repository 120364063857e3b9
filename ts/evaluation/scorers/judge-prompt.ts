import { fail } from '../../native/index.ts';
import type { Row } from '../task.ts';
import { compileTemplate, type Template } from '../template.ts';

const compiled = new Map<string, Template>();

/** A judge's prompt: a template over the record's columns and some more values. Throws as templates do. */
export function fillPrompt(source: string, doc: Row, more: Row): string {
  let template = compiled.get(source);
  if (template === undefined) {
    template = compileTemplate(source);
    compiled.set(source, template);
  }
  const text = template({ ...doc, ...more });
  return typeof text === 'string'
    ? text
    : fail('ERR_LIBMOE_CONFIG', `a judge's prompt must be text, got ${JSON.stringify(text)}`);
}
