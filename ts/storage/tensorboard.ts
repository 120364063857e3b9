import { closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { writeFully } from './atomic.ts';
import { maskedCrc32c } from './crc32c.ts';
import { reasonOf } from './json.ts';
import { bytesField, doubleField, floatField, integerField, message, packedDoubles } from './protobuf.ts';

let written = 0;

/** Where an {@link EventWriter} takes up. */
export interface EventWriterOptions {
  /** First step that this writer will log, when a run continues: TensorBoard then forgets what older files say of it and after. */
  resumeAt?: number;
  /** Seconds since 1970; for tests. */
  now?: () => number;
}

/**
 * Writes a TensorBoard event file `events.out.tfevents.<seconds>.<host>.<pid>.<n>` into a folder. Records are framed as TensorFlow
 * does (length, masked CRC-32C of the length, data, masked CRC-32C of the data) and reach the file with every call.
 */
export class EventWriter {
  readonly path: string;
  readonly #now: () => number;
  #descriptor: number | undefined;

  /** Throws ERR_LIBMOE_FILE. */
  constructor(folder: string, options: EventWriterOptions = {}) {
    this.#now = options.now ?? (() => Date.now() / 1000);
    const seconds = String(Math.floor(this.#now())).padStart(10, '0');
    written += 1;
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${written}`);
    try {
      mkdirSync(folder, { recursive: true });
      this.#descriptor = openSync(this.path, 'ax');
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot make ${this.path} (${reasonOf(cause)})`, cause);
    }
    this.#event(undefined, bytesField(3, 'brain.Event:2'));
    // SessionLog { status: START }
    if (options.resumeAt !== undefined) this.#event(options.resumeAt, bytesField(7, integerField(1, 1)));
  }

  /** One point of the curve `tag`. */
  scalar(tag: string, step: number, value: number): void {
    this.#summary(tag, step, floatField(2, value));
  }

  /** Several scalars of one step in one record. */
  scalars(step: number, values: Readonly<Record<string, number>>): void {
    const items = Object.entries(values).map(([tag, value]) =>
      bytesField(1, message(bytesField(1, tag), floatField(2, value))),
    );
    if (items.length > 0) this.#event(step, bytesField(5, message(...items)));
  }

  /** The distribution of `values`, in `buckets` equal steps between the smallest and the largest. */
  histogram(tag: string, step: number, values: ArrayLike<number>, buckets = 30): void {
    let [low, high, sum, squares] = [Infinity, -Infinity, 0, 0];
    for (let i = 0; i < values.length; i += 1) {
      const value = values[i]!;
      low = Math.min(low, value);
      high = Math.max(high, value);
      sum += value;
      squares += value * value;
    }
    if (!(Number.isFinite(low) && Number.isFinite(high))) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `histogram "${tag}" needs finite values and at least one, got ${values.length} values`,
      );
    }
    const counts = new Array<number>(high > low ? buckets : 1).fill(0);
    const width = (high - low) / counts.length;
    for (let i = 0; i < values.length; i += 1) {
      const bucket = width > 0 ? Math.min(counts.length - 1, Math.floor((values[i]! - low) / width)) : 0;
      counts[bucket]! += 1;
    }
    const limits = counts.map((_, i) => (i === counts.length - 1 ? high : low + width * (i + 1)));
    const histogram = message(
      doubleField(1, low),
      doubleField(2, high),
      doubleField(3, values.length),
      doubleField(4, sum),
      doubleField(5, squares),
      packedDoubles(6, limits),
      packedDoubles(7, counts),
    );
    this.#summary(tag, step, bytesField(5, histogram));
  }

  /** A text, shown as Markdown. */
  text(tag: string, step: number, text: string): void {
    const shape = bytesField(2, bytesField(2, integerField(1, 1)));
    const tensor = message(integerField(1, 7 /* DT_STRING */), shape, bytesField(8, text));
    const metadata = bytesField(1, bytesField(1, 'text'));
    this.#summary(tag, step, message(bytesField(9, metadata), bytesField(8, tensor)));
  }

  /** Makes what was written durable. */
  sync(): void {
    if (this.#descriptor !== undefined) fsyncSync(this.#descriptor);
  }

  /** Makes everything durable and closes the file. */
  close(): void {
    if (this.#descriptor === undefined) return;
    this.sync();
    closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** As {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #summary(tag: string, step: number, value: Uint8Array): void {
    this.#event(step, bytesField(5, bytesField(1, message(bytesField(1, tag), value))));
  }

  #event(step: number | undefined, what: Uint8Array): void {
    if (this.#descriptor === undefined) fail('ERR_LIBMOE_STATE', `the event file ${this.path} is closed`);
    const stepField = step === undefined ? new Uint8Array() : integerField(2, step);
    const data = message(doubleField(1, this.#now()), stepField, what);
    const frame = Buffer.alloc(12 + data.length + 4);
    frame.writeBigUInt64LE(BigInt(data.length), 0);
    frame.writeUInt32LE(maskedCrc32c(frame.subarray(0, 8)), 8);
    frame.set(data, 12);
    frame.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
    try {
      writeFully(this.#descriptor, frame);
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot write to ${this.path} (${reasonOf(cause)})`, cause);
    }
  }
}
