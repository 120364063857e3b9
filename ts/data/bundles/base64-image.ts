import { mediaExtension } from './media.ts';

const alphabet = /^[A-Za-z0-9+/]+={0,2}$/;
const pictures: readonly (string | undefined)[] = ['jpg', 'png', 'gif', 'webp', 'bmp', 'tif'];

/**
 * The bytes of an image written as base64 text, alone or as a `data:` URL; white space in it does not count. Undefined for any other text, and for
 * base64 of what does not begin like an image.
 */
export function base64Image(text: string): Buffer | undefined {
  const written = text.replace(/^data:[\w/*+.-]*;base64,/, '').replace(/\s+/g, '');
  // Looks at the beginning first: most texts are no base64, and a picture's may have megabytes.
  if (!pictures.includes(mediaExtension(Buffer.from(written.slice(0, 44), 'base64')))) return undefined;
  return alphabet.test(written) && written.replace(/=+$/, '').length % 4 !== 1
    ? Buffer.from(written, 'base64')
    : undefined;
}

/** The part of a media type behind `image/`: `png`, `jpeg`. */
export function pictureType(bytes: Uint8Array): string {
  const ending = mediaExtension(bytes) ?? '*';
  return { jpg: 'jpeg', tif: 'tiff' }[ending] ?? ending;
}
