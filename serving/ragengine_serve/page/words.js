/** The words of an answer, and which tokens each of them is made of. */

const WINDOW = 24; // how far ahead a token's text is looked for, past characters that several tokens share

/**
 * The words of a text.
 * @param {string} text the answer
 * @param {{text: string, posterior: number[], log_prob: number}[]} tokens
 * @returns {{space: string, text: string, tokens: number[]}[]} the space before a word, the word, its tokens
 */
export function wordsOf(text, tokens) {
  const owner = ownersOf(text, tokens);
  return [...text.matchAll(/(\s*)(\S+)/g)].map((match) => {
    const start = match.index + match[1].length;
    return { space: match[1], text: match[2], tokens: [...new Set(owner.slice(start, start + match[2].length))] };
  });
}

/**
 * The posterior over the documents of a word: of its tokens as `document_shares` has it of all tokens.
 * One document makes the whole of a RAG-Sequence answer, so that the last token knows most.
 */
export function posteriorOf(word, tokens, marginalize) {
  const rows = word.tokens.map((token) => tokens[token].posterior);
  if (marginalize === "sequence") return rows.at(-1);
  return rows[0].map((_, document) => rows.reduce((sum, row) => sum + row[document], 0) / rows.length);
}

/** p(word | the words before it): of all of its tokens; null where one has no finite log-probability. */
export function probabilityOf(word, tokens) {
  const logs = word.tokens.map((token) => tokens[token].log_prob);
  return logs.includes(null) ? null : Math.exp(logs.reduce((sum, log) => sum + log, 0));
}

/**
 * For each UTF-16 unit of the text the token that it came from.  A token's own text is not always a part of the
 * answer's: it may be special, half a character, or have lost its space.
 */
function ownersOf(text, tokens) {
  const owner = [];
  let pending = null;
  tokens.forEach((token, number) => {
    const whole = token.text.includes("\ufffd") ? "" : token.text;
    const piece = owner.length || text.startsWith(whole) ? whole : whole.trimStart(); // the answer begins without space
    const found = piece ? text.slice(0, owner.length + WINDOW + piece.length).indexOf(piece, owner.length) : -1;
    if (found === owner.length || (found > 0 && (pending !== null || !text.slice(owner.length, found).trim()))) {
      while (owner.length < found) owner.push(pending ?? number);
      while (owner.length < found + piece.length) owner.push(number);
      pending = null;
    } else if (pending === null) {
      pending = number;
    }
  });
  const rest = pending ?? tokens.length - 1;
  while (owner.length < text.length) owner.push(rest);
  return owner;
}
