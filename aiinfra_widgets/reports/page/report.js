"use strict";
(async () => {
  const button = document.getElementById("r-code");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const all = [...document.querySelectorAll("details.r-code")];
      const open = all.some((d) => !d.open);
      for (const d of all) d.open = open;
      button.textContent = open ? button.dataset.hide : button.dataset.show;
    });
  }
  for (const node of document.querySelectorAll("script[data-figure]")) {
    const figure = node.closest("figure");
    try {
      const item = JSON.parse(node.textContent);
      await Bokeh.embed.embed_item(item, node.dataset.figure);
      const wide = item.doc.roots.some((root) => /stretch|scale/.test((root.attributes || {}).sizing_mode || ""));
      figure.classList.toggle("r-fixed", !wide);
      figure.classList.add("r-live");
    } catch (error) {
      figure.querySelector(".r-instead em").textContent = "(the figure could not be drawn: " + error + ")";
    }
  }
  document.documentElement.dataset.ready = "true";
})();
