import { z } from 'zod';

/** The source of a regular expression with the flag `u`. */
export const regularExpression = z.string().refine((source) => {
  try {
    return new RegExp(source, 'u') instanceof RegExp;
  } catch {
    return false;
  }
}, 'must be a regular expression');
