/** Scripts of the Unicode database that have more than a handful of letters; anything else counts as Common. */
const scriptNames =
  'Latin Han Cyrillic Greek Arabic Hebrew Hiragana Katakana Hangul Devanagari Thai Bengali Tamil Telugu Gujarati Gurmukhi ' +
  'Kannada Malayalam Sinhala Oriya Lao Tibetan Myanmar Georgian Armenian Ethiopic Khmer Mongolian Bopomofo Yi Cherokee ' +
  'Canadian_Aboriginal Ogham Runic Syriac Thaana Tagalog Hanunoo Buhid Tagbanwa Limbu Tai_Le New_Tai_Lue Buginese Tai_Tham ' +
  'Balinese Sundanese Batak Lepcha Ol_Chiki Glagolitic Coptic Tifinagh Vai Bamum Syloti_Nagri Phags_Pa Saurashtra Kayah_Li ' +
  'Rejang Javanese Cham Tai_Viet Meetei_Mayek Nko Samaritan Mandaic Braille Gothic Deseret Old_Italic Osage Adlam Cuneiform ' +
  'Egyptian_Hieroglyphs Linear_A Linear_B Cypriot Phoenician Old_Persian Ugaritic Brahmi Kharoshthi Lisu Miao Inherited';

const tests = scriptNames
  .split(' ')
  .map((name) => ({ name, pattern: new RegExp(`\\p{Script=${name}}`, 'u') }));
const known = new Map<number, number>();

/** Code of "no script yet": combining marks take the script of what stands before them. */
export const anyScript = -1;
const common = tests.length;
const inherited = tests.length - 1;
const han = tests.findIndex((test) => test.name === 'Han');
const kana = new Set(['Hiragana', 'Katakana']);

/**
 * The script of a code point as SentencePiece groups them: kana and the long-vowel mark count as Han, marks of script Inherited
 * are {@link anyScript}, digits, punctuation and unknown code points are Common.
 */
export function scriptOf(codePoint: number): number {
  let script = known.get(codePoint);
  if (script === undefined) {
    const text = String.fromCodePoint(codePoint);
    const index = tests.findIndex((test) => test.pattern.test(text));
    if (codePoint === 0x30fc || (index >= 0 && kana.has(tests[index]!.name))) script = han;
    else if (index === inherited) script = anyScript;
    else script = index < 0 ? common : index;
    known.set(codePoint, script);
  }
  return script;
}
