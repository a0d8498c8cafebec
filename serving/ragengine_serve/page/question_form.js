/** The question and how to answer it, within the server's limits. */

import { byId, element } from "./dom.js";

const form = byId("ask");
const fields = form.elements;
let streaming = new Map(); // by the name of a model the mixtures that stream with one beam

/** Set choices, defaults and limits by `/info`. */
export function offer({ models, limits }) {
  const options = models[0].default_options;
  fields.n_docs.max = limits.max_n_docs;
  fields.num_beams.max = limits.max_num_beams;
  streaming = new Map(models.map(({ name, streaming }) => [name, streaming]));
  fields.model.replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
  byId("model-label").hidden = models.length < 2;
  fill({ ...options, question: fields.question.value, model: models[0].name });
}

/** Show a request. */
export function fill({ question, model, n_docs, num_beams, marginalize }) {
  fields.question.value = question;
  fields.model.value = model;
  fields.n_docs.value = n_docs;
  fields.num_beams.value = num_beams;
  fields.marginalize.value = marginalize;
  tellMode();
}

/** The request that the form shows. */
export function chosen() {
  return {
    question: fields.question.value,
    model: fields.model.value,
    n_docs: fields.n_docs.valueAsNumber,
    num_beams: fields.num_beams.valueAsNumber,
    marginalize: fields.marginalize.value,
  };
}

/** Whether the answer to a request comes token by token. */
export const streams = ({ model, num_beams, marginalize }) => num_beams === 1 && !!streaming.get(model)?.includes(marginalize);

/** Show which field an error is about; null for none. */
export function blame(name) {
  for (const field of form.querySelectorAll("[name]")) {
    if (field.name === name) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
}

/** The button stops what runs. */
export function busy(running) {
  byId("submit").replaceChildren(running ? "Stop" : "Ask");
}

/** Call `asked` when the form is sent, `stop` when it is while something runs. */
export function onSubmit(isBusy, asked, stop) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fields.question.value = fields.question.value.trim();
    if (isBusy()) stop();
    else if (form.reportValidity()) asked();
  });
  fields.question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("input", tellMode);
}

function tellMode() {
  byId("mode").replaceChildren(streams(chosen()) ? "The answer streams." : "");
}
