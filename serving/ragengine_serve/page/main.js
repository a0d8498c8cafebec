/** The page: asks, keeps what was answered, and shows one answer at a time. */

import { AnswerView, wordNote } from "./answer_view.js";
import { ask } from "./asking.js";
import { byId } from "./dom.js";
import { FigureView } from "./figure_view.js";
import { counted, percent } from "./format.js";
import { History } from "./history.js";
import * as panels from "./panels_view.js";
import { PassagesView } from "./passages_view.js";
import * as form from "./question_form.js";
import * as server from "./server.js";
import { posteriorOf, probabilityOf } from "./words.js";

const history = new History();
const figure = new FigureView();
const answerView = new AnswerView((number) => point(number));
const passages = new PassagesView({
  leaveOut: (id) => askAgain((ids) => [...ids, id]),
  putBack: (id) => askAgain((ids) => ids.filter((other) => other !== id)),
});

let shown = null; // the entry of the history that the page shows
let words = []; // of its answer
let running = null; // the AbortController of the question that is being answered
let growing = false; // whether the page shows an answer that streams in

form.onSubmit(() => running !== null, () => submit(), () => running.abort());
byId("forget").addEventListener("click", () => {
  history.clear();
  panels.showHistory([], null, recall);
  byId("question").focus();
});
byId("key").addEventListener("change", (event) => {
  server.useKey(event.target.value);
  greet();
});
greet();

/** Learn what the server has; and show the newest answer of this tab after a reload. */
async function greet() {
  try {
    const found = await server.info();
    form.offer(found);
    served(found);
    byId("key-label").hidden = true;
    fail(null);
    if (history.entries.length) recall(history.entries[0]);
  } catch (error) {
    if (error.status === 503) setTimeout(greet, (error.retryAfter ?? 1) * 1000); // it is still loading
    fail(error);
  }
}

function served({ models, version }) {
  const { name, index, bundle } = models[0];
  byId("served").replaceChildren(`${name} · ${counted(index.passages, "passage")} · ${bundle.precision} · ${version}`);
}

/** Ask what the form says; passages stay left out as long as the question is the same. */
function submit() {
  const asked = form.chosen();
  const same = shown?.asked.question === asked.question && shown.asked.model === asked.model;
  run({ ...asked, left_out: same ? shown.asked.left_out : [] });
}

async function askAgain(change) {
  form.fill(shown.asked);
  await run({ ...shown.asked, left_out: change(shown.asked.left_out) });
  byId("passages-title").focus();
}

async function run(asked) {
  running?.abort();
  const mine = (running = new AbortController());
  const isCurrent = () => running === mine;
  busy(true);
  fail(null);
  say("Asking.");
  try {
    const entry = await ask(asked, form.streams(asked), mine.signal, new Growing(isCurrent));
    if (!isCurrent()) return;
    const before = shown?.asked.question === asked.question ? shown : null;
    history.add(entry);
    show(entry, before);
    say(`Answer: ${entry.answer.answer.trim() || "no text"}.`);
    served(await server.info());
  } catch (error) {
    if (!isCurrent()) return;
    if (growing) back();
    if (mine.signal.aborted) say("Stopped.");
    else fail(error);
  } finally {
    if (isCurrent()) {
      running = null;
      busy(false);
    }
  }
}

/** An answer that streams in. */
class Growing {
  #isCurrent;
  #answer = { answer: "", tokens: [], documents: [] };

  constructor(isCurrent) {
    this.#isCurrent = isCurrent;
    this.documents = this.documents.bind(this);
    this.token = this.token.bind(this);
  }

  documents({ documents }) {
    if (!this.#isCurrent()) return;
    this.#answer.documents = documents;
    reveal(true);
    byId("word-note").replaceChildren("");
    answerView.show(this.#answer, { growing: true });
    passages.show(documents, [], { growing: true });
  }

  token(token) {
    if (!this.#isCurrent()) return;
    this.#answer.tokens.push(token);
    this.#answer.answer += token.text;
    answerView.show(this.#answer, { growing: true });
    passages.shade(token.posterior);
  }
}

/** Show an entry; `before` is the one to compare it with. */
function show(entry, before = null) {
  const { answer, asked, body, leftOut } = entry;
  shown = entry;
  reveal(false);
  words = answerView.show(answer);
  passages.show(answer.documents, leftOut);
  figure.show(answer, asked.marginalize);
  panels.showConfidence(answer);
  panels.showComparison(entry, before);
  panels.showAlternatives(answer);
  panels.showTimings(answer);
  panels.showCode(body, server.hasKey());
  panels.showHistory(history.entries, entry, recall);
  point(-1);
}

/** Show an entry of the history, and its request in the form. */
function recall(entry) {
  form.fill(entry.asked);
  show(entry);
}

/** Give up an answer that streamed in: show what was there before it. */
function back() {
  if (shown) show(shown);
  else reveal(false);
}

/** Show the parts of a result; those that need a whole answer only when it is whole. */
function reveal(isGrowing) {
  growing = isGrowing;
  const something = growing || shown !== null;
  byId("intro").hidden = something;
  byId("result").hidden = !something;
  byId("result").classList.toggle("growing", growing);
}

function busy(isRunning) {
  form.busy(isRunning);
  byId("result").setAttribute("aria-busy", String(isRunning));
}

/** Shade the passages by a word; by the whole answer for -1. */
function point(number) {
  if (growing) return;
  const note = byId("word-note");
  answerView.mark(number);
  const { answer, asked } = shown;
  const word = words[number];
  figure.mark(word?.tokens ?? []);
  if (!word) {
    note.replaceChildren("Point at a word to see where it came from.");
    passages.shade(answer.documents.map(({ posterior }) => posterior));
    return;
  }
  const posterior = posteriorOf(word, answer.tokens, asked.marginalize);
  const best = posterior.indexOf(Math.max(...posterior));
  const probability = probabilityOf(word, answer.tokens);
  note.replaceChildren(wordNote(word, best, percent(posterior[best]), probability === null ? null : percent(probability)));
  passages.shade(posterior, { texts: words.map(({ text }) => text), number });
}

function say(sentence) {
  byId("status").replaceChildren(sentence);
}

/** Show an error; null for none. */
function fail(error) {
  const place = byId("error");
  place.hidden = error === null;
  form.blame(error?.field ?? null);
  if (error === null) return;
  if (!(error instanceof server.ServerError)) throw error;
  const later = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  place.replaceChildren(error.message + later);
  say("");
  if (error.status === 401) {
    byId("key-label").hidden = false;
    byId("key").focus();
  }
}
