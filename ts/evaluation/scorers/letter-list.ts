import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { pythonClasses } from '../python-text.ts';
import { readPythonList } from './python-literal.ts';
import { registerScorer, type ScorerQuestion } from './scorer.ts';

const { boundary: B } = pythonClasses;
const standalone = new RegExp(`${B}[A-Z]${B}`, 'gu');
const announced = new RegExp(`answer\\s*:\\s*\\(?([A-Z])${B}`, 'giu');

function goldLetters(target: ScorerQuestion['target']): string[] {
  const list = typeof target === 'string' ? readPythonList(target) : target;
  return Array.isArray(list) && list.length > 0
    ? list.map(String)
    : fail('ERR_LIBMOE_DATA', `the target must be a list of letters, got ${JSON.stringify(target)}`);
}

/**
 * Several questions in one image, answered one after the other (MMMU-Pro's composites): the capitals that stand alone, in their order, against the list of
 * right letters. Metrics `right` and `asked`, for a ratio. With `fixed` scores only letters after "Answer:", if there are any.
 */
registerScorer('letter_list', {
  options: z.strictObject({}),
  score: (response, { target }, _, mode) => {
    const gold = goldLetters(target);
    const said = mode === 'fixed' ? [...response.matchAll(announced)].map((match) => match[1]!) : [];
    const letters = (said.length > 0 ? said : (response.match(standalone) ?? [])).slice(0, gold.length);
    return {
      values: { right: gold.filter((letter, i) => letters[i] === letter).length, asked: gold.length },
      parsed: letters.length === 0 ? null : letters.join(''),
    };
  },
});
