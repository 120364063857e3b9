export { type DownloadedDataset, type DownloadOptions, downloadDataset } from './download.ts';
export { findBundle } from './find.ts';
export { bundleLayouts, type ImportedBundle, type ImportOptions, importBundle } from './import.ts';
export {
  type BundleManifest,
  type BundleSplitEntry,
  bundleManifestFile,
  readBundleManifest,
} from './manifest.ts';
export { type Bundle, type BundleRow, type BundleRows, openBundle } from './open.ts';
export { type BundleConversationOptions, writeConversations } from './to-conversations.ts';
export { type VerifiedBundle, verifyBundle } from './verify.ts';
