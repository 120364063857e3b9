import { fail } from '../../../native/index.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../../../storage/json.ts';

const maxLayers = 10_000;

/** Reads the fields of a config.json and says which one is wrong. */
export class Fields {
  readonly #json: JsonObject;
  readonly #source: string;

  constructor(json: JsonObject, source: string) {
    this.#json = json;
    this.#source = source;
  }

  wrong(message: string): never {
    return fail('ERR_LIBMOE_CONFIG', `${this.#source}: ${message}`);
  }

  /** The field, undefined when absent or null. */
  get(name: string): JsonValue | undefined {
    return this.#json[name] ?? undefined;
  }

  /** Whether the field is written, be it null. */
  has(name: string): boolean {
    return this.#json[name] !== undefined;
  }

  /** A list of numbers. */
  numbers(name: string): number[] {
    const value = this.get(name);
    return Array.isArray(value) && value.every((item) => typeof item === 'number')
      ? (value as number[])
      : this.wrong(`"${name}" must be a list of numbers, got ${JSON.stringify(value)}`);
  }

  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    return typeof value === 'number'
      ? value
      : this.wrong(`"${name}" must be a number, got ${JSON.stringify(value)}`);
  }

  /** A whole number from 1 on. */
  count(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    return Number.isInteger(value) && value > 0
      ? value
      : this.wrong(`"${name}" must be a positive integer, got ${value}`);
  }

  /** How many layers there are: no more than anybody builds, so that lists of them can be made. */
  layers(name: string, fallback?: number): number {
    const value = this.count(name, fallback);
    return value <= maxLayers ? value : this.wrong(`"${name}" must be at most ${maxLayers}, got ${value}`);
  }

  /** A number of which null says that there is none; `absent` where the field is not written. */
  optionalNumber(name: string, absent?: number): number | undefined {
    if (!this.has(name)) return absent;
    return this.get(name) === undefined ? undefined : this.number(name);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    return typeof value === 'boolean'
      ? value
      : this.wrong(`"${name}" must be true or false, got ${JSON.stringify(value)}`);
  }

  string(name: string, fallback: string): string {
    const value = this.get(name) ?? fallback;
    return typeof value === 'string'
      ? value
      : this.wrong(`"${name}" must be a string, got ${JSON.stringify(value)}`);
  }

  object(name: string): JsonObject | undefined {
    const value = this.get(name);
    return value === undefined || isJsonObject(value) ? value : this.wrong(`"${name}" must be an object`);
  }

  /** The fields of an object; of an empty one when it is absent. */
  nested(name: string): Fields {
    return new Fields(this.object(name) ?? {}, `${this.#source}: ${name}`);
  }

  /** Refuses a model that needs something we would leave out. */
  refuse(condition: boolean, what: string): void {
    if (condition) this.wrong(`${what} is not supported; the weights would give wrong results without it`);
  }
}
