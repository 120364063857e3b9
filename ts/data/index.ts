export type { Loader, TokenBatch } from './batch.ts';
export { checkBatch } from './batch-check.ts';
export {
  type TokenizerTrainingOptions,
  type TokenizerTrainingStatistics,
  type TrainedTokenizer,
  trainTokenizer,
  writeTokenizer,
} from './bpe-training.ts';
export * from './bundles/index.ts';
export {
  applyChatTemplate,
  type ChatMessage,
  type ChatOptions,
  type ChatTemplate,
  loadChatTemplate,
} from './chat-template.ts';
export * from './conversations/index.ts';
export { type CorpusDocument, type CorpusOptions, corpusFiles, readCorpus, textsOf } from './corpora.ts';
export type { TextDocuments } from './corpus-files.ts';
export {
  type DecodedImage,
  decodeImage,
  type ImageCounts,
  type ImageDecodeOptions,
  type ImageFailure,
  ImagePool,
  type ImagePoolOptions,
  type ImageProcessor,
  type ImageProcessorOptions,
  type ImageRecipe,
  type ImageReference,
  imageProcessor,
  type PooledImage,
} from './images/index.ts';
export { LibmoeOrderLoader, type LibmoeOrderOptions } from './libmoe-order.ts';
export { PackedLoader, type PackedLoaderOptions } from './packed-loader.ts';
export type { Normalization } from './sentence-normalization.ts';
export { type OpenShardsOptions, openShards, type ShardDataset } from './shard-dataset.ts';
export {
  type DocumentSeparator,
  readManifest,
  type ShardEntry,
  type ShardManifest,
  storySeparator,
} from './shard-files.ts';
export { type ShardOptions, type ShardProgress, writeShards } from './shards.ts';
export { type SotuDocument, type SotuSplits, sotuDocuments, sotuSplits, sotuVersion } from './sotu.ts';
export { type TokenDataset, type TokenDatasetOptions, tokenDataset } from './token-dataset.ts';
export {
  type DecodeOptions,
  type EncodeOptions,
  loadTokenizer,
  type Tokenizer,
  tokenizerFromJson,
} from './tokenizer.ts';
export type { BatchImages, VisionLanguageBatch } from './vision-batch.ts';
