/** What stands beside the answer: whether to trust it, what else the search found, the time it took, code for it. */

import { confidenceOf } from "./confidence.js";
import { byId, element } from "./dom.js";
import { duration, percent, quoted } from "./format.js";
import { curlOf, pythonOf } from "./snippets.js";

export function showConfidence(answer) {
  const { probability, confidence, warnings } = confidenceOf(answer);
  byId("confidence").replaceChildren(
    element("p", { class: warnings.length ? "verdict doubt" : "verdict" },
      element("strong", {}, warnings.length ? "Check this answer" : "No warning"),
      ...(confidence === null ? [] : [element("span", {}, `confidence ${percent(confidence)}`)]),
      element("span", {}, `probability p(y | x) ${percent(probability)}`)),
    ...(warnings.length ? [element("ul", {}, ...warnings.map((text) => element("li", {}, text)))] : []));
}

/** What a changed question, or a changed setting, did to the answer; nothing where the question is another. */
export function showComparison(entry, before) {
  const root = byId("comparison");
  root.hidden = !before;
  if (!before) return;
  const same = before.answer.answer === entry.answer.answer;
  root.replaceChildren(
    element("p", {}, element("strong", {}, same ? "The same answer as before" : "Another answer than before")),
    element("table", {}, element("tbody", {}, comparisonRow("Before", before), comparisonRow("Now", entry))));
}

function comparisonRow(name, { asked, answer }) {
  return element("tr", {},
    element("th", { scope: "row" }, name),
    element("td", {},
      element("span", { class: "found" }, answer.answer.trim() || "(no text)"),
      element("span", { class: "how" }, settingsText(asked))),
    element("td", { class: "number" }, percent(confidenceOf(answer).probability)));
}

/** `5 passages, 4 beams`. */
export function settingsText({ n_docs, num_beams, marginalize, left_out }) {
  const parts = [`${n_docs} passages`, num_beams === 1 ? "greedy" : `${num_beams} beams`];
  if (left_out.length) parts.push(`${left_out.length} left out`);
  if (marginalize === "sequence") parts.push("RAG-Sequence");
  return parts.join(", ");
}

export function showAlternatives({ hypotheses }) {
  const others = hypotheses.slice(1);
  byId("alternatives-section").hidden = !others.length;
  byId("alternatives").replaceChildren(...others.map(({ answer, log_prob }) => element("li", {},
    element("span", {}, answer.trim() || "(no text)"),
    element("span", { class: "number" }, percent(log_prob === null ? null : Math.exp(log_prob))))));
}

export function showTimings({ timings_ms }) {
  const stages = Object.entries(timings_ms);
  const total = stages.reduce((sum, [, ms]) => sum + ms, 0);
  byId("timings").replaceChildren(
    element("p", { class: "total" }, duration(total)),
    element("div", { class: "strip", "aria-hidden": "true" },
      ...stages.map(([, ms], number) => element("span", { data: { stage: number % 8 }, vars: { ms } }))),
    element("dl", { class: "stages" }, ...stages.map(([name, ms], number) => element("div", { data: { stage: number % 8 } },
      element("dt", {}, name.replaceAll("_", " ")), element("dd", { class: "number" }, duration(ms))))));
}

export function showCode(body, needsKey) {
  const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
  byId("code").replaceChildren(
    ...[["curl", curlOf(base, body, needsKey)], ["Python", pythonOf(base, body, needsKey)]].map(([name, text]) => snippet(name, text)));
}

function snippet(name, text) {
  const pre = element("pre", { tabindex: "0", role: "region", "aria-label": `As ${name}` }, text);
  const button = element("button", {
    type: "button", class: "quiet", "aria-label": `Copy as ${name}`, onclick: () => copy(text, pre, button),
  }, "Copy");
  return element("details", {}, element("summary", {}, name), button, pre);
}

/** Copy a text; where the browser forbids it (a page that is not of this machine, without TLS) select it. */
async function copy(text, pre, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.replaceChildren("Copied");
    setTimeout(() => button.replaceChildren("Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(pre);
  }
}

export function showHistory(entries, current, select) {
  byId("history-section").hidden = !entries.length;
  byId("history").replaceChildren(...entries.map((entry) => element("li", {},
    element("button", { type: "button", "aria-current": entry === current ? "true" : null, onclick: () => select(entry) },
      element("span", { class: "asked" }, entry.asked.question),
      element("span", { class: "found" }, quoted(entry.answer.answer)),
      element("span", { class: "how" }, settingsText(entry.asked))))));
}
