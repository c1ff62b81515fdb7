// Draws Bokeh figures and keeps them live. BokehJS arrives once per page over the comm, data as one binary buffer per message.
const LOADED = "__aiinfra_bokeh";
const taken = new WeakSet(); // documents that a view already owns

function bokeh(model) {
  const version = model.get("bokeh_version");
  const known = window[LOADED];
  if (known && known.version === version) return known.ready;
  const ready = new Promise((resolve, reject) => {
    if (window.Bokeh && window.Bokeh.version === version) return resolve(window.Bokeh);
    const late = setTimeout(() => reject(new Error("the kernel did not send BokehJS")), 60000);
    const take = (message) => {
      if (message.type !== "bokehjs") return;
      model.off("msg:custom", take);
      clearTimeout(late);
      const other = window.Bokeh; // somebody else's version stays what the page calls Bokeh
      const script = document.createElement("script");
      script.textContent = message.code;
      document.head.appendChild(script);
      const ours = window.Bokeh;
      if (other) window.Bokeh = other;
      resolve(ours);
    };
    model.on("msg:custom", take);
    model.send({ type: "need-bokehjs" });
  });
  ready.catch(() => delete window[LOADED]); // the next view asks again
  window[LOADED] = { version, ready };
  return ready;
}

function documentOf(B, id) {
  for (let i = B.documents.length - 1; i >= 0; i--) {
    const doc = B.documents[i];
    if (!taken.has(doc) && doc.get_model_by_id(id)) { taken.add(doc); return doc; }
  }
  throw new Error("no Bokeh document for " + id);
}

function make(tag, name, ...children) {
  const el = document.createElement(tag);
  if (name) el.className = name;
  el.append(...children);
  return el;
}

// A word that explains itself when pointed at.
function explained(el, help) {
  if (!help) return el;
  el.classList.add("aiinfra-term");
  el.dataset.help = help;
  el.setAttribute("aria-description", help);
  return el;
}

function skin(doc, el) {
  const css = getComputedStyle(el);
  const get = (name, otherwise) => css.getPropertyValue(name).trim() || otherwise;
  const ink = get("--jp-ui-font-color1", "#222"), soft = get("--jp-ui-font-color2", "#666");
  const rule = get("--jp-border-color2", "#ddd"), paper = get("--jp-layout-color1", "#fff");
  const font = get("--jp-ui-font-family", "system-ui, sans-serif");
  for (const m of doc._all_models.values()) {
    if (m.type.endsWith("Axis")) m.setv({ axis_label_text_color: soft, major_label_text_color: soft, axis_label_text_font: font,
      major_label_text_font: font, axis_line_color: rule, major_tick_line_color: rule, minor_tick_line_color: null });
    else if (m.type === "Grid") m.setv({ grid_line_color: rule, grid_line_alpha: 0.6 });
    else if (m.type === "Title") m.setv({ text_color: ink, text_font: font });
    else if (m.type === "Legend") m.setv({ label_text_color: soft, label_text_font: font, background_fill_color: paper });
    else if (m.type === "LabelSet") m.setv({ text_color: ink, text_font: font, background_fill_color: paper, background_fill_alpha: 0.7 });
    if (m.tags && m.tags.includes("ink")) {
      const set = {};
      for (const [key, colour] of [["line_color", soft], ["text_color", soft]]) if (key in m.properties) set[key] = colour;
      m.setv(set);
    }
    if (m.tags && m.tags.includes("paper") && "line_color" in m.properties) m.setv({ line_color: paper });
  }
}

// One figure in its card: a caption over it while it is empty, data sources by name, and a y range that follows until the
// reader takes hold of it.
class Chart {
  constructor(spec) { this.spec = spec; this.sources = {}; this.follow = true; this.sent = null; }

  async show(B, parent) {
    this.el = document.createElement("figure");
    this.el.className = "aiinfra-chart aiinfra-chart-" + this.spec.name;
    this.el.setAttribute("role", "img");
    this.el.setAttribute("aria-label", this.spec.label);
    const head = make("figcaption", "aiinfra-chart-head", explained(make("b", "", this.spec.title), this.spec.help));
    for (const key of this.spec.keys) {
      const sign = make("i", "aiinfra-key aiinfra-key-" + key.sign);
      sign.style.setProperty("--key", key.colour);
      const entry = make("span", "", sign, explained(make("span", "", key.text), key.help));
      entry.dataset.source = key.source;
      entry.dataset.column = key.column; // a column of zeros explains nothing
      entry.hidden = true;
      head.appendChild(entry);
    }
    this.empty = make("p", "aiinfra-chart-empty", this.spec.empty);
    const target = make("div", "aiinfra-chart-body");
    this.el.append(head, this.empty, target);
    parent.appendChild(this.el);
    this.blank(true);
    this.views = await B.embed.embed_item(this.spec.item, target);
    this.doc = documentOf(B, this.spec.item.root_id);
    for (const m of this.doc._all_models.values()) {
      if (m.type === "ColumnDataSource" && m.name) this.sources[m.name] = m;
      if (m.type === "Range1d" && m.name === "follow") this.range = m;
    }
    this.sight = new IntersectionObserver(entries => this.rest(!entries[entries.length - 1].isIntersecting), { rootMargin: "100px" });
    this.sight.observe(this.el);
    if (this.range) {
      const moved = () => { const s = this.sent; if (s && (this.range.start !== s[0] || this.range.end !== s[1])) this.follow = false; };
      this.range.properties.start.change.connect(moved);
      this.range.properties.end.change.connect(moved);
      const root = this.doc.get_model_by_id(this.spec.item.root_id);
      root.on_event && root.on_event("reset", () => { this.follow = true; this.zoom(this.sent); });
    }
  }

  // A figure that nobody sees takes its data and is painted when it comes into sight: painting is most of what a page costs.
  rest(yes) { for (const m of this.doc._all_models.values()) if ("hold_render" in m.properties) m.hold_render = yes; }

  blank(yes) { this.el.classList.toggle("aiinfra-chart-blank", yes); }

  zoom(range) {
    if (!range || !this.range) return;
    this.sent = range;
    if (this.follow) this.range.setv({ start: range[0], end: range[1] });
  }

  data(update, columns) {
    const source = this.sources[update.source];
    if (!source) return;
    if (update.reset) source.data = columns; else source.stream(columns, null);
    const points = source.get_length() ?? 0;
    for (const entry of this.el.querySelectorAll("[data-source]")) {
      if (entry.dataset.source !== update.source) continue;
      const drawn = source.data[entry.dataset.column];
      entry.hidden = points === 0 || (drawn != null && !drawn.some(v => v));
    }
    if (update.seen != null) this.blank(!update.seen);
  }
}

function apply(charts, message, buffers) {
  if (message.type !== "data") return;
  const view = buffers.length ? new DataView(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength) : null;
  let at = 0;
  for (const update of message.updates) {
    const columns = { ...update.text };
    for (const [name, n] of update.columns) {
      const values = new Array(n);
      for (let i = 0; i < n; i++, at += 8) values[i] = view.getFloat64(at, true);
      columns[name] = values;
    }
    charts[update.chart]?.data(update, columns);
  }
  for (const [name, range] of Object.entries(message.ranges)) charts[name]?.zoom(range);
  for (const [name, text] of Object.entries(message.labels)) charts[name]?.el.setAttribute("aria-label", text);
}

// ipywidgets gives its sliders no accessible name; the label beside it is one. A field without a label has its tooltip or placeholder.
function nameControls(root) {
  for (const handle of root.querySelectorAll(".noUi-handle:not([aria-label]), .widget-hslider [role=slider]:not([aria-label])")) {
    const label = handle.closest(".widget-inline-hbox")?.querySelector(".widget-label");
    if (label?.textContent) handle.setAttribute("aria-label", label.textContent);
  }
  for (const field of root.querySelectorAll(".widget-text input:not([aria-label]), .widget-textarea textarea:not([aria-label])")) {
    const named = [...(field.labels || [])].some(l => l.textContent.trim());
    const text = field.closest("[title]")?.title || field.placeholder;
    if (!named && text) field.setAttribute("aria-label", text);
  }
}

export default {
  async render({ model, el }) {
    el.classList.add("aiinfra-charts", ...model.get("classes"));
    const charts = {}, pending = [];
    let open = false;
    const take = (message, buffers) => { if (open) apply(charts, message, buffers); else pending.push([message, buffers]); };
    model.on("msg:custom", take);
    let B;
    try { B = await bokeh(model); } catch (error) {
      el.textContent = model.get("broken").replace("{reason}", error.message);
      return;
    }
    for (const spec of model.get("charts")) {
      charts[spec.name] = new Chart(spec);
      await charts[spec.name].show(B, el);
    }
    const dress = () => { for (const c of Object.values(charts)) skin(c.doc, el); };
    dress();
    const theme = new MutationObserver(() => requestAnimationFrame(dress));
    theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
    // The theme's colours come with a style sheet of their own, which may be loaded after the attribute has changed.
    const sheets = new MutationObserver(() => setTimeout(dress, 100));
    sheets.observe(document.head, { childList: true });
    const lab = el.closest(".aiinfra-lab");
    if (lab) lab.lang = model.get("language"); // so that a browser takes the right font for Chinese, and a screen reader the right voice
    const names = lab && new MutationObserver(() => nameControls(lab));
    if (names) { nameControls(lab); names.observe(lab, { childList: true, subtree: true }); }
    open = true;
    for (const [message, buffers] of pending.splice(0)) apply(charts, message, buffers);
    model.send({ type: "hello" });
    el.dataset.ready = "true";
    return () => {
      model.off("msg:custom", take);
      theme.disconnect(); sheets.disconnect(); names?.disconnect();
      for (const c of Object.values(charts)) {
        c.sight.disconnect();
        const i = B.documents.indexOf(c.doc);
        if (i >= 0) B.documents.splice(i, 1);
        c.doc.clear();
      }
    };
  },
};
