"use strict";
(async () => {
  const button = document.getElementById("r-code");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const all = [...document.querySelectorAll("details.r-code")];
      const open = all.some((d) => !d.open);
      for (const d of all) d.open = open;
      button.textContent = open ? "Hide all code" : "Show all code";
    });
  }
  for (const node of document.querySelectorAll("script[data-figure]")) {
    const figure = node.closest("figure");
    try {
      await Bokeh.embed.embed_item(JSON.parse(node.textContent), node.dataset.figure);
      figure.classList.add("r-live");
    } catch (error) {
      figure.querySelector(".r-instead em").textContent = "(the figure could not be drawn: " + error + ")";
    }
  }
  document.documentElement.dataset.ready = "true";
})();
