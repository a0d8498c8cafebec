/** The answer, word by word: a group of buttons with one stop of the Tab key, and arrow keys between them. */

import { byId, element } from "./dom.js";
import { quoted } from "./format.js";
import { bare } from "./sentences.js";
import { wordsOf } from "./words.js";

const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export class AnswerView {
  #root = byId("words");
  #buttons = [];
  #pinned = -1;
  #pointed;

  /** @param {function(number): void} pointed is told the word pointed at or pinned; -1 for none */
  constructor(pointed) {
    this.#pointed = pointed;
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    this.#root.addEventListener("pointerleave", () => this.#pointed(this.#pinned));
    this.#root.addEventListener("focusout", (event) => {
      if (!this.#root.contains(event.relatedTarget)) this.#pointed(this.#pinned);
    });
  }

  /** Show an answer, or as much of it as there is. */
  show({ answer, tokens }, { growing = false } = {}) {
    const words = wordsOf(answer, tokens);
    this.#root.setAttribute("aria-busy", String(growing));
    this.#root.classList.toggle("growing", growing);
    this.#pinned = -1;
    this.#buttons = words.map((word, number) => this.#button(word, number));
    const parts = words.flatMap((word, number) => [number ? word.space : "", this.#buttons[number]]);
    this.#root.replaceChildren(...(parts.length || growing ? parts : ["(no text)"]));
    return words;
  }

  #button(word, number) {
    return element("button", {
      type: "button", class: "word", tabindex: number ? "-1" : "0", "aria-pressed": "false",
      onpointerenter: (event) => event.pointerType === "mouse" && this.#pointed(number),
      onfocus: () => this.#focused(number),
      onclick: () => this.#pin(this.#pinned === number ? -1 : number),
    }, word.text);
  }

  #focused(number) {
    this.#buttons.forEach((button, other) => { button.tabIndex = other === number ? 0 : -1; });
    this.#pointed(number);
  }

  #pin(number) {
    this.#pinned = number;
    this.#buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
    this.#pointed(number);
  }

  #key(event) {
    if (event.key === "Escape") this.#pin(-1);
    const to = { Home: 0, End: this.#buttons.length - 1 }[event.key]
      ?? this.#buttons.indexOf(document.activeElement) + (MOVES[event.key] ?? NaN);
    if (!this.#buttons[to]) return;
    event.preventDefault();
    this.#buttons[to].focus();
  }

  /** Mark the word pointed at. */
  mark(number) {
    this.#buttons.forEach((button, other) => button.classList.toggle("pointed", other === number));
  }
}

/** What the passages say of a word, as a sentence. */
export function wordNote(word, best, share, probability) {
  const sure = probability === null ? "" : ` The model gave it ${probability}.`;
  return `${quoted(bare(word.text))}: ${share} from passage ${best + 1}.${sure}`;
}
