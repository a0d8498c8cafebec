/** The passages that were read: how much of the answer, or of a word of it, came from each. */

import { byId, element } from "./dom.js";
import { percent } from "./format.js";
import { sentencesOf, sentenceWith } from "./sentences.js";

const MARKED_FROM = 0.1; // the least posterior of a passage whose sentence is marked

export class PassagesView {
  #list = byId("passages");
  #out = byId("left-out");
  #cards = [];
  #change;

  /** @param {{leaveOut: function(string), putBack: function(string)}} change is called with a passage's id */
  constructor(change) {
    this.#change = change;
  }

  /** Show documents; `leftOut` are those that were not to be read. */
  show(documents, leftOut, { growing = false } = {}) {
    const removable = !growing && documents.length > 1;
    this.#cards = documents.map((document) => this.#card(document, removable));
    this.#list.replaceChildren(...this.#cards.map(({ root }) => root));
    this.#out.hidden = !leftOut.length;
    this.#out.replaceChildren(...leftOut.map((document) => element("li", {},
      element("span", {}, named(document)),
      element("button", {
        type: "button", class: "quiet", "aria-label": `Put back ${named(document)}`,
        onclick: () => this.#change.putBack(document.id),
      }, "Put back"))));
    this.shade(documents.map((document) => document.posterior));
  }

  /**
   * Shade by a posterior over the documents, of the answer or of a word.
   * @param {(number|null)[]} posterior
   * @param {{texts: string[], number: number}} [word] the answer's words and the number of the one meant
   */
  shade(posterior, word) {
    this.#cards.forEach((card, number) => {
      const p = posterior[number];
      card.root.style.setProperty("--p", p ?? 0);
      card.bar.style.setProperty("--p", p ?? 0);
      card.number.replaceChildren(percent(p));
      card.label.replaceChildren(word ? "this word" : "posterior");
      const marked = word && p >= MARKED_FROM ? sentenceWith(card.texts, word.texts, word.number) : -1;
      card.text.replaceChildren(...card.texts.flatMap((text, other) => (other === marked ? marking(text) : [text])));
    });
  }

  #card(document, removable) {
    const texts = sentencesOf(document.text);
    const label = element("span", {});
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    const number = element("span", { class: "number" });
    const text = element("p", { class: "text" });
    const root = element("li", { class: "passage" },
      element("div", { class: "head" },
        element("h3", {}, document.title || document.id || "Passage"),
        removable ? element("button", {
          type: "button", class: "quiet", "aria-label": `Leave out ${named(document)}, and ask again`,
          onclick: () => this.#change.leaveOut(document.id),
        }, "Leave out") : null),
      element("div", { class: "measures" },
        element("span", {}, "prior"),
        element("span", { class: "bar prior", "aria-hidden": "true", vars: { p: document.prior ?? 0 } }),
        element("span", { class: "number" }, percent(document.prior)),
        label, bar, number),
      text,
      metadataOf(document));
    return { root, label, bar, number, text, texts };
  }
}

/** What the index knows of a passage beside its title and text; null where that is nothing. */
function metadataOf({ metadata }) {
  const fields = Object.entries(metadata ?? {}); // a kept answer may be of an older server
  if (!fields.length) return null;
  return element("dl", { class: "metadata" }, ...fields.map(([name, value]) => element("div", {},
    element("dt", {}, name), element("dd", {}, value))));
}

/** A sentence marked, without the space after it. */
const marking = (text) => [element("mark", {}, text.trimEnd()), text.slice(text.trimEnd().length)];

const named = ({ title, id }) => title || id || "a passage without a title";
