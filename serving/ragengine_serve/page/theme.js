// The theme that the reader chose, set before anything is drawn; none follows the system.
"use strict";

(() => {
  const root = document.documentElement;
  const apply = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  let chosen = "";
  try {
    chosen = localStorage.getItem("theme") || "";
  } catch { /* storage is off: the choice lasts as long as the page */ }
  apply(chosen);

  addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = chosen;
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem("theme", select.value);
      } catch { /* as above */ }
    });
  });
})();
