import { createHash } from 'node:crypto';
import { fail } from '../../native/index.ts';
import { isJsonObject, type JsonValue } from '../../storage/json.ts';
import type { Loader } from '../batch.ts';
import type { VisionLanguageBatch } from '../vision-batch.ts';
import { type Place, type Plan, planBatch } from './batch-plan.ts';
import { collate, type ReadySample } from './collate.ts';
import { imageMark } from './conversation.ts';
import type { Conversations } from './conversations.ts';
import {
  checkedLoaderOptions,
  type ResolvedLoaderOptions,
  type VisionLanguageLoaderOptions,
} from './loader-options.ts';
import { epochOrder } from './order.ts';
import { SampleReader } from './sample-reader.ts';
import { type Tally, TallySheet } from './tally.ts';

interface LoaderPlan extends Plan {
  /** Samples that were passed over in planning. */
  unusable: readonly number[];
}

interface Upcoming {
  plan: Promise<LoaderPlan>;
  ready: Promise<{ batch: VisionLanguageBatch; tally: TallySheet }>;
}

const mostReplacements = 1000;

/**
 * Conversations with images as packed batches. Which samples make a batch is a function of (data, options, epoch, place) alone: a loader
 * resumed anywhere, with any number of ranks, goes on as if it had never stopped, and neither speed nor order of arrival of images changes
 * a bit. A sample that turns out unusable leaves its batch smaller; only where nothing would be left on a rank do the next usable samples of
 * the epoch fill in.
 */
export class VisionLanguageLoader implements Loader {
  readonly tokensPerBatch: number;
  readonly shard: { readonly rank: number; readonly world: number };
  private readonly data: Conversations;
  private readonly options: ResolvedLoaderOptions;
  private readonly reader: SampleReader;
  private readonly fingerprint: string;
  private readonly sheet = new TallySheet();
  private place: Place = { epoch: 0, position: 0, waiting: [] };
  private upcoming: Upcoming[] = [];
  private readonly orders = new Map<number, Int32Array>();

  /** Throws ERR_LIBMOE_ARGUMENT for options out of range, or data with images without `images`. */
  constructor(data: Conversations, options: VisionLanguageLoaderOptions) {
    this.options = checkedLoaderOptions(data, options);
    this.data = data;
    this.reader = new SampleReader(data, this.options);
    const { rank, world, batching, context } = this.options;
    this.shard = { rank, world };
    const tokens =
      'tokens' in batching
        ? batching.tokens
        : ('bins' in batching ? batching.bins : batching.samples) * context;
    this.tokensPerBatch = Math.ceil(tokens / world);
    this.fingerprint = fingerprintOf(data, this.options);
  }

  /** True when the last epoch is over. */
  get done(): boolean {
    return this.place.epoch >= this.options.epochs;
  }

  /** What was left out so far, in the batches given. */
  get tally(): Readonly<Tally> {
    return this.sheet.counts;
  }

  /** Batches of an epoch; undefined where their size goes by tokens. */
  get batchesPerEpoch(): number | undefined {
    const { batching } = this.options;
    return 'samples' in batching ? Math.ceil(this.data.length / batching.samples) : undefined;
  }

  async next(): Promise<VisionLanguageBatch> {
    if (this.done)
      fail(
        'ERR_LIBMOE_STATE',
        `the ${this.options.epochs} epochs of this loader are over: raise epochs, or ask .done first`,
      );
    this.lookAhead(1);
    const { plan, ready } = this.upcoming[0]!;
    try {
      const { after } = await plan;
      this.lookAhead(1 + this.options.prefetch);
      const { batch, tally } = await ready;
      this.upcoming.shift();
      this.place = after;
      for (const text of this.sheet.add(tally, 5)) this.options.warn(text);
      return batch;
    } catch (error) {
      // What comes after a failure starts over from the same place.
      this.upcoming = [];
      throw error;
    }
  }

  /** Waits for the batches that are being made ahead, which nobody will take. */
  async close(): Promise<void> {
    const ahead = this.upcoming;
    this.upcoming = [];
    await Promise.allSettled(ahead.flatMap(({ plan, ready }): Promise<unknown>[] => [plan, ready]));
  }

  /** The batches until `done`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<VisionLanguageBatch> {
    while (!this.done) yield await this.next();
  }

  state(): JsonValue {
    const { epoch, position, waiting } = this.place;
    return { epoch, position, waiting: [...waiting], fingerprint: this.fingerprint };
  }

  restore(state: JsonValue): void {
    const { epoch, position, waiting, fingerprint } = isJsonObject(state) ? state : {};
    const fits = (value: unknown, end: number): value is number =>
      typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < end;
    const { length } = this.data;
    if (
      !fits(epoch, Number.POSITIVE_INFINITY) ||
      !fits(position, length + 1) ||
      !Array.isArray(waiting) ||
      !waiting.every((each): each is number => fits(each, length)) ||
      fingerprint !== this.fingerprint
    )
      fail(
        'ERR_LIBMOE_STATE',
        `the saved place ${JSON.stringify(state).slice(0, 200)} is not one of this loader (${this.fingerprint}): data, tokenizer, template, ` +
          'context, images, order, batching and seed must be those of the saved run',
      );
    this.upcoming = [];
    this.place = { epoch, position, waiting };
  }

  /** Starts work on batches until so many are under way. */
  private lookAhead(count: number): void {
    while (this.upcoming.length < count) {
      const begin = this.upcoming.at(-1)?.plan.then(({ after }) => after) ?? Promise.resolve(this.place);
      const plan = begin.then((place) => this.plan(place));
      const ready = Promise.all([begin, plan]).then(([place, made]) => this.load(place, made));
      // Whoever asks for the batch hears of its failure; until then it is nobody's.
      for (const promise of [plan, ready]) promise.catch(() => {});
      this.upcoming.push({ plan, ready });
    }
  }

  private async plan(place: Place): Promise<LoaderPlan> {
    const { batching, world, groups, context, epochs } = this.options;
    const unusable: number[] = [];
    // Nothing follows the last epoch; what is planned there is never asked for.
    if (place.epoch >= epochs) return { shares: [], after: place, unusable };
    const order = this.order(place.epoch);
    const lengthOf = async (at: number): Promise<number> => {
      const length = await this.reader.lengthOf(order[at]!);
      if (length === 0) unusable.push(at);
      return length;
    };
    const settings = { batching, world, groups, context, count: order.length, lengthOf };
    return { ...(await planBatch(place, settings)), unusable };
  }

  private order(epoch: number): Int32Array {
    let order = this.orders.get(epoch);
    if (!order) {
      const { order: kind, batching, groups, seed } = this.options;
      const batchSamples = 'samples' in batching ? batching.samples : 1;
      order = epochOrder(this.data.words, kind, { batchSamples, groups }, { seed, epoch });
      for (const old of this.orders.keys()) if (old < epoch) this.orders.delete(old);
      this.orders.set(epoch, order);
    }
    return order;
  }

  private async load(
    place: Place,
    { shares, unusable }: LoaderPlan,
  ): Promise<{ batch: VisionLanguageBatch; tally: TallySheet }> {
    const tally = new TallySheet();
    const { rank, world, images, tokensPerImage } = this.options;
    const order = shares.length === 0 ? new Int32Array(0) : this.order(place.epoch);
    // They are read once more to say what is wrong with them, each by one rank.
    for (const at of unusable) if (at % world === rank) await this.reader.sample(order[at]!, tally);
    const share = shares[rank] ?? [];
    const found = await Promise.all(share.map((at) => this.reader.sample(order[at]!, tally)));
    const ready = found.filter((sample) => sample !== undefined);
    const learns = ({ sample }: ReadySample) => sample.targets.some((target) => target >= 0);
    if (shares.length > 0 && !ready.some(learns)) {
      const end = Math.max(place.position, ...shares.flat()) + 1;
      const filling = await this.replacement(order, end + rank, world, tally, learns);
      ready.push(filling);
    }
    tally.counts.samples += ready.length;
    const zeroImages = this.data.compat === 'libmoe' && images !== undefined;
    return { batch: collate(ready, { side: images?.side ?? 0, zeroImages, tokensPerImage }), tally };
  }

  /** The next usable sample of the order, of those that this rank looks at. */
  private async replacement(
    order: Int32Array,
    from: number,
    world: number,
    tally: TallySheet,
    learns: (sample: ReadySample) => boolean,
  ): Promise<ReadySample> {
    for (let tried = 0; tried < mostReplacements; ++tried) {
      const found = await this.reader.sample(order[(from + tried * world) % order.length]!, tally);
      if (found === undefined || !learns(found)) continue;
      tally.count('filledIn');
      return found;
    }
    const why = tally.messages.map(({ text }) => text)[0];
    return fail(
      'ERR_LIBMOE_DATA',
      `none of ${mostReplacements} samples in a row can be learned from${why === undefined ? '' : `; the first: ${why}`}`,
    );
  }
}

/** Everything that decides what batches hold, but for the pixels. */
function fingerprintOf(data: Conversations, options: ResolvedLoaderOptions): string {
  const { tokenizer, template, context, tokensPerImage, imageTokenId, order, batching, groups, seed } =
    options;
  const probe = template.render({
    turns: [
      { role: 'user', text: `${imageMark}?` },
      { role: 'assistant', text: '!' },
    ],
    images: [''],
    unplaced: [],
  });
  const parts = [
    data.fingerprint,
    tokenizer.hash,
    template.name,
    probe,
    context,
    tokensPerImage,
    imageTokenId,
    order,
    batching,
    // Which samples make a batch depends on it in the grouped orders alone.
    ...(order === 'length' || order === 'modality' ? [groups] : []),
    seed,
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}
