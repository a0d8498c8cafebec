/** Elements.  Text only ever enters the page through `append`, which makes text nodes: nothing is parsed as HTML. */

export const byId = (id) => document.getElementById(id);

/**
 * An element.
 * @param {string} tag
 * @param {object} [properties] `class`, `data` (an object), `vars` (CSS variables without dashes), listeners
 *   (`onclick`), and attributes; null, undefined and false leave one out.
 * @param {...(Node|string)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "data") Object.assign(made.dataset, value);
    else if (name === "vars") for (const [key, number] of Object.entries(value)) made.style.setProperty(`--${key}`, number);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
