/** From what the reader chose to an answer, with the request that gives it again. */

import * as server from "./server.js";

const ALTERNATIVES = 5;

/**
 * Ask.
 * @param {{question: string, model: string, n_docs: number, num_beams: number, marginalize: string,
 *   left_out: string[]}} asked `left_out`: ids of passages that are not to be read
 * @param {boolean} streaming whether the answer may come token by token
 * @param {AbortSignal} signal
 * @param {{documents: function, token: function}} told is called with the parts of a stream
 * @returns {Promise<{asked, body, answer, leftOut}>} `body`: of POST /v1/answer; `leftOut`: passages
 */
export async function ask(asked, streaming, signal, told) {
  const { body, leftOut } = await requestOf(asked, signal);
  const answer = await (streaming ? streamed(body, signal, told) : server.answer(body, signal));
  return { asked, body, answer, leftOut };
}

async function requestOf({ left_out, ...options }, signal) {
  const body = { ...options, num_return_sequences: Math.min(options.num_beams, ALTERNATIVES) };
  if (!left_out.length) return { body, leftOut: [] };
  const { question, model, n_docs } = options;
  const { documents } = await server.retrieve({ question, model, n_docs }, signal);
  const isLeftOut = ({ id }) => left_out.includes(id);
  const read = documents.filter((document) => !isLeftOut(document));
  if (!read.length) throw new server.ServerError("Every passage is left out; put one back.");
  const given = read.map(({ id, title, text, metadata, doc_score }) => ({ id, title, text, metadata, score: doc_score }));
  return { body: { ...body, n_docs: read.length, documents: given }, leftOut: documents.filter(isLeftOut) };
}

async function streamed(body, signal, told) {
  let whole = null;
  for await (const [name, content] of server.stream(body, signal)) {
    if (name === "final") whole = content;
    else told[name](content);
  }
  return whole;
}
