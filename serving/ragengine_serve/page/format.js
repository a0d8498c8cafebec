/** Numbers as people read them. */

/** A probability in percent; the ends are never rounded to certainty. */
export function percent(p) {
  if (p === null || p === undefined) return "–";
  if (p > 0 && p < 0.001) return "<0.1 %";
  if (p < 1 && p >= 0.9995) return ">99.9 %";
  return `${(p * 100).toFixed(p === 0 || p === 1 || (p >= 0.1 && p < 0.995) ? 0 : 1)} %`;
}

/** Milliseconds; seconds from one on. */
export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

export const quoted = (text) => `“${text.trim()}”`;

/** `1 passage`, `3 passages`. */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
