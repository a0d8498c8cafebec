/** The sentences of a passage, and the one that has a word of the answer. */

const SEGMENTER = globalThis.Intl?.Segmenter && new Intl.Segmenter(undefined, { granularity: "sentence" });

/** The sentences of a text; together they are the text. */
export function sentencesOf(text) {
  return SEGMENTER ? [...SEGMENTER.segment(text)].map(({ segment }) => segment) : [text];
}

/** A text without what readers do not tell apart: case and accents. */
export const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** A word without the punctuation around it; all of it where there is nothing else. */
export const bare = (word) => word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "") || word;

/** Whether a text has a run of words, as whole words. */
export function has(text, run) {
  const inside = folded(text);
  const looked = folded(run);
  for (let at = inside.indexOf(looked); at >= 0; at = inside.indexOf(looked, at + 1)) {
    if (!isLetter(inside[at - 1]) && !isLetter(inside[at + looked.length])) return true;
  }
  return false;
}

/**
 * The sentence that has the longest part of the answer around a word.
 * @param {string[]} sentences
 * @param {string[]} words the answer's
 * @param {number} number of the word
 * @returns {number} of the sentence; -1 where none has the word
 */
export function sentenceWith(sentences, words, number) {
  const lengths = sentences.map((sentence) => runLength(sentence, words, number));
  const longest = Math.max(0, ...lengths);
  return longest ? lengths.indexOf(longest) : -1;
}

/** How many words around word `number` a sentence has in one run; 0 where it lacks the word. */
function runLength(sentence, words, number) {
  let [start, end] = [number, number];
  const fits = (from, to) => from >= 0 && to < words.length && has(sentence, bare(words.slice(from, to + 1).join(" ")));
  if (!fits(start, end)) return 0;
  while (fits(start, end + 1)) end += 1;
  while (fits(start - 1, end)) start -= 1;
  return end - start + 1;
}

const isLetter = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);
