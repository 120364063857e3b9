import type { Tokenizer } from '../data/tokenizer.ts';
import type { EvalTokenizer } from './model.ts';

/** A tokenizer of ts/data as evaluation needs it; whether it adds BOS is asked of the tokenizer itself. */
export function evalTokenizer(tokenizer: Tokenizer): EvalTokenizer {
  const { bosId, eosId } = tokenizer;
  const bosText = bosId === undefined ? undefined : tokenizer.idToToken(bosId);
  return {
    name: `${tokenizer.name}@${tokenizer.hash.slice(0, 12)}`,
    encode: (text) => [...tokenizer.encode(text)],
    decode: (ids) => tokenizer.decode(ids),
    addsBos: bosId !== undefined && tokenizer.encode('a', { addSpecialTokens: true })[0] === bosId,
    ...(bosId === undefined ? {} : { bos: bosId }),
    ...(eosId === undefined ? {} : { eos: eosId }),
    ...(bosText === undefined ? {} : { bosText }),
  };
}
