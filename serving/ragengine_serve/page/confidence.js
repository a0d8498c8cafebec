/** When not to trust an answer: what the server says of it. */

/**
 * @param {object} answer as POST /v1/answer gives it
 * @returns {{probability: number|null, confidence: number|null, warnings: string[]}} p(y | x), the probability
 *   that the answer is right where the index is calibrated, and sentences
 */
export function confidenceOf(answer) {
  const probability = answer.log_prob === null ? null : Math.exp(answer.log_prob);
  return { probability, confidence: answer.confidence ?? null, warnings: answer.notes };
}
