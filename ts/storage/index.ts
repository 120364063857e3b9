export { recoverAll, recoverFolder, writeFileAtomically, writeFolderAtomically } from './atomic.ts';
export {
  checksumFile,
  checksumOf,
  type FileChecksum,
  type VerifyOptions,
  verifyFolder,
  writeChecksums,
} from './checksums.ts';
export { Journal, type JournalOptions, readJournal, truncateJournal } from './journal.ts';
export {
  describeJson,
  isJsonObject,
  type JsonObject,
  type JsonValue,
  parseJson,
  readJson,
  readJsonObject,
  readText,
  reasonOf,
} from './json.ts';
export { readLines } from './lines.ts';
export {
  type Attributes,
  type Column,
  type ColumnArray,
  type ColumnType,
  type RecordBlock,
  RecordReader,
  RecordWriter,
} from './records.ts';
export {
  type NamedTensors,
  openSafetensors,
  type ReadTensorOptions,
  readSafetensors,
  readSafetensorsHeader,
  Safetensors,
  type SafetensorsEntry,
  type SafetensorsHeader,
  type SafetensorsWriteOptions,
  type ShardOptions,
  type StoredBox,
  writeSafetensors,
  writeShardedSafetensors,
} from './safetensors.ts';
export { EventWriter, type EventWriterOptions } from './tensorboard.ts';
