// A table of runs whose rows can be picked. Everything it shows is in `rows`; what is picked goes back in `picked`.
function make(tag, name, text) {
  const el = document.createElement(tag);
  if (name) el.className = name;
  if (text != null) el.textContent = text;
  return el;
}

export default {
  render({ model, el }) {
    const table = make("table", "aiinfra-table aiinfra-runs-table");
    el.append(table);

    const pick = (id, on) => {
      const others = model.get("picked").filter(x => x !== id);
      model.set("picked", on ? [...others, id] : others);
      model.save_changes();
    };

    const line = (row, words) => {
      const tr = make("tr"), first = make("td"), box = make("input");
      box.type = "checkbox";
      box.checked = model.get("picked").includes(row.id);
      box.setAttribute("aria-label", words.pick.replace("{run}", row.id));
      box.addEventListener("change", () => pick(row.id, box.checked));
      first.append(box);
      tr.append(first);
      tr.dataset.run = row.id;
      for (const [key, , kind] of model.get("columns")) {
        const td = make("td", kind);
        if (key === "state" && row.state) {
          td.append(make("span", "aiinfra-chip aiinfra-chip-" + row.kind, row.sign + " " + row.state_word));
          td.title = row.message;
        } else if (key === "predicted" || key === "measured") {
          td.textContent = row[key];
          td.title = row.quantity;
        } else {
          td.textContent = row[key];
          if (kind === "aiinfra-wide") td.title = row[key];
        }
        tr.append(td);
      }
      tr.addEventListener("click", event => { if (event.target !== box && !String(getSelection())) { box.checked = !box.checked; pick(row.id, box.checked); } });
      return tr;
    };

    const draw = () => {
      const words = model.get("words"), held = el.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.run : null;
      const caption = make("caption", "", words.caption), head = make("thead"), body = make("tbody"), names = make("tr");
      names.append(make("th", "", ""));
      names.firstChild.setAttribute("aria-label", words.picked);
      for (const [, text, kind] of model.get("columns")) names.append(make("th", kind, text));
      head.append(names);
      for (const row of model.get("rows")) body.append(line(row, words));
      table.replaceChildren(caption, head, body);
      table.hidden = model.get("rows").length === 0;
      mark();
      if (held) body.querySelector(`tr[data-run="${CSS.escape(held)}"] input`)?.focus();
    };

    const mark = () => {
      const picked = model.get("picked");
      for (const tr of table.querySelectorAll("tbody tr")) {
        const place = picked.indexOf(tr.dataset.run);
        tr.classList.toggle("aiinfra-picked", place >= 0);
        tr.querySelector("input").checked = place >= 0;
      }
    };

    model.on("change:rows change:words", draw);
    model.on("change:picked", mark);
    draw();
    el.dataset.ready = "true";
    return () => { model.off("change:rows change:words", draw); model.off("change:picked", mark); };
  },
};
