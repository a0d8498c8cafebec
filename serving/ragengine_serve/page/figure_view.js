/** Figure 2 of the paper: the answer's tokens over its passages, shaded by the posterior. */

import { byId, element } from "./dom.js";

const SMALLEST = 0.05; // printed as a number in its cell

export class FigureView {
  #root = byId("figure");
  #columns = [];

  show({ documents, tokens }, marginalize) {
    const kind = marginalize === "sequence" ? "p(z | x, y≤ₜ)" : "p(z | x, yₜ, y<ₜ)";
    const heads = tokens.map(({ text }) => element("th", { scope: "col" },
      element("span", {}, text.replaceAll("\n", "⏎").trim() || "␣")));
    const rows = documents.map((document, row) => ({
      head: element("th", { scope: "row", title: document.title },
        element("span", { class: "rank" }, `${row + 1}`), document.title || document.id),
      cells: tokens.map(({ posterior }) => element("td", { vars: { p: posterior[row] } },
        posterior[row] >= SMALLEST ? `${Math.round(posterior[row] * 100)}` : element("span", { class: "unseen" }, "under 5"))),
    }));
    this.#columns = heads.map((head, column) => [head, ...rows.map(({ cells }) => cells[column])]);
    byId("figure-note").replaceChildren(`Posterior ${kind} in percent; below 5 not printed.`);
    this.#root.replaceChildren(element("table", {},
      element("caption", { class: "unseen" }, "The posterior of each passage at each token, in percent."),
      element("thead", {}, element("tr", {}, element("td", {}), ...heads)),
      element("tbody", {}, ...rows.map(({ head, cells }) => element("tr", {}, head, ...cells)))));
  }

  /** Mark the tokens of a word. */
  mark(tokens) {
    this.#columns.forEach((cells, column) => {
      for (const cell of cells) cell.classList.toggle("pointed", tokens.includes(column));
    });
  }
}
