export type { Batching } from './batch-plan.ts';
export { type Conversation, type ConversationCompat, imageMark, type Turn } from './conversation.ts';
export {
  type ConversationOptions,
  type Conversations,
  conversationsOf,
  openConversations,
} from './conversations.ts';
export type { ImageSource, ImageTiles, LoadedImage } from './image-source.ts';
export { jinjaTemplate } from './jinja-template.ts';
export type { VisionLanguageLoaderOptions } from './loader-options.ts';
export type { SampleOrder } from './order.ts';
export {
  type EncodedSample,
  type ImageRows,
  type Sample,
  SampleMaker,
  type SampleOptions,
} from './samples.ts';
export type { Tally } from './tally.ts';
export {
  type ConversationTemplate,
  conversationTemplate,
  type RoundMarks,
  type Segment,
  type TemplateName,
  type TemplateOptions,
  templateNames,
} from './templates.ts';
export { VisionLanguageLoader } from './vision-language-loader.ts';
