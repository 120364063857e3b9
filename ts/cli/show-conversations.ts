import type { EncodedSample, Tokenizer } from '../data/index.ts';
import { fail } from '../native/index.ts';
import { whole } from './options.ts';
import { log, printJson, table } from './output.ts';

export interface ShowOptions {
  record?: string;
  tokenizer?: string;
  template?: string;
  context: string;
  tokensPerImage: string;
  compat: string;
  cache?: string;
  json?: boolean;
}

/** A stretch of a record as the model sees it. */
interface Stretch {
  text: string;
  learned: boolean;
  tokens: number;
}

/** What a file of conversations holds, or with `--tokenizer` one of its records as the model sees it. */
export async function showConversations(file: string, o: ShowOptions): Promise<void> {
  const { openConversations } = await import('../data/index.ts');
  const { compat } = o;
  if (compat !== 'fixed' && compat !== 'libmoe')
    return fail('ERR_LIBMOE_ARGUMENT', `--compat must be fixed or libmoe, got "${compat}"`);
  const data = await openConversations(file, { compat, warn: log, ...(o.cache && { cache: o.cache }) });
  try {
    const lengths = data.words.map(Math.abs).sort();
    const result = {
      file,
      conversations: data.length,
      withImages: data.words.filter((words) => words > 0).length,
      leftOut: data.bad.count,
      words: { fewest: lengths[0]!, median: lengths[lengths.length >> 1]!, most: lengths.at(-1)! },
      ...(o.tokenizer !== undefined && { record: await shown(data, o.tokenizer, o) }),
    };
    if (o.json) return printJson({ ...result, reasons: data.bad.first });
    const { words, record, file: _, ...counts } = result;
    const rows = [
      ...Object.entries(counts),
      ['words', `${words.fewest} to ${words.most}, median ${words.median}`],
    ];
    console.log(table(['', ''], rows as [string, string | number][]));
    if (!record) return;
    console.log(
      `\n${record.name}: ${record.tokens} tokens, ${record.learnedTokens} of them learned, marked by « »${record.note}\n`,
    );
    console.log(record.stretches.map(({ text, learned }) => (learned ? `«${text}»` : text)).join(''));
  } finally {
    await data.close();
  }
}

async function shown(
  data: Awaited<ReturnType<typeof import('../data/index.ts').openConversations>>,
  from: string,
  o: ShowOptions,
) {
  const { conversationTemplate, jinjaTemplate, loadChatTemplate, loadTokenizer, SampleMaker } = await import(
    '../data/index.ts'
  );
  const tokenizer = loadTokenizer(from);
  const number = whole('--record', o.record ?? '1');
  if (number < 1 || number > data.length)
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `--record must lie in 1…${data.length} (usable records), got ${number}`,
    );
  const template =
    o.template === undefined ? jinjaTemplate(loadChatTemplate(from)) : conversationTemplate(o.template);
  const context = whole('--context', o.context);
  const settings = {
    tokensPerImage: whole('--tokens-per-image', o.tokensPerImage),
    imageTokenId: 0,
    compat: data.compat,
  };
  const maker = new SampleMaker({ tokenizer, template, context, ...settings });
  const name = data.nameOf(number - 1);
  const conversation = await data.read(number - 1);
  const encoded = maker.encode(conversation);
  if (typeof encoded === 'string') return fail('ERR_LIBMOE_DATA', `${name}: ${encoded}`);
  const sample = maker.expand(
    encoded,
    encoded.images.map(() => 1),
  );
  const note = encoded.ignored
    ? '; nothing is learned: lengths do not add up (compat libmoe)'
    : sample.cut
      ? `; cut at ${context}`
      : '';
  return {
    name,
    images: encoded.images,
    template: template.name,
    tokens: sample.ids.length,
    learnedTokens: sample.targets.filter((target) => target >= 0).length,
    cut: sample.cut,
    ignored: encoded.ignored,
    note,
    stretches: stretchesOf(encoded, tokenizer),
  };
}

/** Ids back in words, stretch by stretch, images as their mark; before the context cuts any off. */
function stretchesOf({ ids, learned }: EncodedSample, tokenizer: Tokenizer): Stretch[] {
  const stretches: { ids: number[]; learned: boolean }[] = [];
  for (const [i, id] of ids.entries()) {
    const last = stretches.at(-1);
    if (!last || last.learned !== learned[i] || id < 0 || last.ids[0]! < 0)
      stretches.push({ ids: [id], learned: learned[i]! });
    else last.ids.push(id);
  }
  return stretches.map(({ ids, learned }) => ({
    text: ids[0]! < 0 ? '<image>' : tokenizer.decode(ids, { skipSpecialTokens: false }),
    learned,
    tokens: ids.length,
  }));
}
