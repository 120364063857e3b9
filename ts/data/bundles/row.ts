/** One record of a data set as a reader of files gives it: values of JSON, and besides `bigint`, `Date`, bytes and {@link LocalImage}. */
export type SourceRow = Record<string, unknown>;

/** A row with the place it came from, `file:line` or `file:row`, for messages. */
export interface PlacedRow {
  row: SourceRow;
  where: string;
}

/** An image file beside the records. */
export class LocalImage {
  constructor(readonly file: string) {}
}

/** The rows of one split, not yet read. */
export interface SplitRows {
  /** Configuration of a data set that has several, else null. */
  config: string | null;
  split: string;
  /** Folders in which relative image paths of the rows are looked up, in this order. */
  imageFolders: readonly string[];
  rows(): AsyncIterable<PlacedRow>;
}
