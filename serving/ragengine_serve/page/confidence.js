/** When not to trust an answer: the server's notes, and what can be read off its numbers and passages. */

import { percent, quoted } from "./format.js";
import { bare, has } from "./sentences.js";
import { probabilityOf, wordsOf } from "./words.js";

const EVEN = 0.5; // below it the rest together is more probable
const SHOWN = 3;

/**
 * @param {object} answer as POST /v1/answer gives it
 * @returns {{probability: number|null, warnings: string[]}} p(y | x), and sentences: first the server's own
 */
export function confidenceOf(answer) {
  const probability = answer.log_prob === null ? null : Math.exp(answer.log_prob);
  const words = wordsOf(answer.answer, answer.tokens);
  const found = [empty(words), unsure(probability, words, answer), absent(words, answer)];
  return { probability, warnings: [...answer.notes, ...found.filter((sentence) => sentence !== null)] };
}

const empty = (words) => (words.length ? null : "The answer is empty.");

/** What the model itself finds less probable than everything else together. */
function unsure(probability, words, answer) {
  const weak = words
    .map((word) => ({ text: bare(word.text), p: probabilityOf(word, answer.tokens) }))
    .filter(({ p }) => p !== null && p < EVEN)
    .sort((one, other) => one.p - other.p);
  if (weak.length) {
    const [{ text, p }] = weak;
    return `The model was not sure of ${quoted(text)}: it gave it ${percent(p)}.`;
  }
  if (probability !== null && probability < EVEN) {
    return `The model gave this answer ${percent(probability)}, and all others together more.`;
  }
  return null;
}

/** Words that were in nothing the model read. */
function absent(words, answer) {
  const read = [answer.question, ...answer.documents.flatMap(({ title, text }) => [title, text])];
  const missing = [...new Set(words.map(({ text }) => bare(text)))].filter((word) => !read.some((text) => has(text, word)));
  if (!missing.length) return null;
  const rest = missing.length > SHOWN ? ` and ${missing.length - SHOWN} more words` : "";
  return `No passage has ${missing.slice(0, SHOWN).map(quoted).join(", ")}${rest}.`;
}
