/** When not to trust an answer: what the server says of it. */

/**
 * @param {object} answer as POST /v1/answer gives it
 * @returns {{probability: number|null, confidence: number|null, warnings: string[], remarks: string[]}} p(y | x),
 *   the probability that the answer is right where the index is calibrated, sentences that doubt the answer, and
 *   those that say why there is no confidence
 */
export function confidenceOf(answer) {
  const probability = answer.log_prob === null ? null : Math.exp(answer.log_prob);
  const ofCalibration = (_, number) => answer.flags[number].startsWith("calibration_");
  const remarks = answer.notes.filter(ofCalibration);
  const warnings = answer.notes.filter((note) => !remarks.includes(note));
  return { probability, confidence: answer.confidence ?? null, warnings, remarks };
}
