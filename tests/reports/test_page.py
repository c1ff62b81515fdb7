from __future__ import annotations

import base64
import html
import html.parser
import json
import re

import nbformat
import pytest
from bokeh.embed import json_item
from bokeh.models import CustomJS, Div, HoverTool
from bokeh.plotting import figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from aiinfra_widgets.reports.bokehjs import FIGURE_MIME, as_json, scripts_for
from aiinfra_widgets.reports.html import to_html
from aiinfra_widgets.reports.markup import MAX_TEXT_CHARS, safe_html, safe_latex, safe_markdown, safe_text

HIT = "window.pwned=1"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{HIT}"><script>{HIT}</script></svg>'
REMOTE = "https://attacker.invalid/x"

#: Everything by which a notebook from somebody else could act in the reader's browser: where it stands, and what it is.
PAYLOADS = {
    "markdown script": ("md", f"<script>{HIT}</script>"),
    "markdown picture": ("md", f'<img src=x onerror="{HIT}">'),
    "markdown svg": ("md", SVG),
    "markdown link": (
        "md",
        f"[click](javascript:{HIT}) <a href=' jAvascript:{HIT}'>x</a> <a href='data:text/html,x'>y</a>",
    ),
    "markdown remote picture": ("md", f"![x]({REMOTE}.png) <img srcset='{REMOTE}.png 2x'>"),
    "markdown formula": (
        "md",
        rf"$\href{{javascript:{HIT}}}{{x}}$ <math href='javascript:{HIT}'><mtext><style><img src=x onerror={HIT}>",
    ),
    "output html": (
        "text/html",
        f'<b onclick="{HIT}">x</b><script>{HIT}</script><iframe srcdoc="<script>{HIT}</script>"></iframe>',
    ),
    "output style": (
        "text/html",
        f'<style>@import "{REMOTE}.css"</style><p style="background:url({REMOTE}.png)">x</p>',
    ),
    "output page": (
        "text/html",
        f'<base href="{REMOTE}"><meta http-equiv="refresh" content="0;url={REMOTE}"><form action="{REMOTE}">',
    ),
    "output javascript": ("application/javascript", HIT),
    "output svg": ("image/svg+xml", SVG),
    "output png": ("image/png", f'x" onerror="{HIT}'),
    "output markdown": ("text/markdown", f'<img src=x onerror="{HIT}">'),
    "output latex": ("text/latex", f"$$</span><img src=x onerror={HIT}>$$"),
    "output text": ("text/plain", f"<script>{HIT}</script>"),
    "stream": ("stream", f"\x1b[31m<script>{HIT}</script><img src=x onerror={HIT}>"),
    "error": ("error", f"<script>{HIT}</script>"),
    "title": ("title", f"</title><script>{HIT}</script><img src=x onerror={HIT}>"),
}


class Live(html.parser.HTMLParser):
    """Collects what could act: scripts, event handlers, frames, and addresses that are fetched or run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "script":
            self.scripts += 1
        if tag in {"iframe", "object", "embed", "base", "form", "svg", "link", "foreignobject", "template"}:
            self.found.append(tag)
        for name, value in values.items():
            value = (value or "").strip().lower()
            if name.startswith("on") or name in {"srcdoc", "srcset", "action", "formaction", "xlink:href"}:
                self.found.append(f"{tag} {name}")
            if name in {"src", "href"} and not value.startswith(("#", "https:", "http:", "mailto:", "data:image/")):
                self.found.append(f"{tag} {name}={value[:40]}")
            if name == "src" and not value.startswith("data:image/"):
                self.found.append(f"{tag} fetches {value[:40]}")
            if name == "style" and "url" in value:
                self.found.append(f"{tag} style={value[:40]}")


def live(page: str) -> Live:
    parser = Live()
    parser.feed(page)
    return parser


def executed(*outputs, cells=()):
    cell = new_code_cell("print(1)", outputs=list(outputs), execution_count=1)
    return new_notebook(cells=[*cells, cell])


def hostile(kind: str, text: str) -> nbformat.NotebookNode:
    if kind == "md":
        return executed(cells=[new_markdown_cell(text)])
    if kind == "stream":
        return executed(new_output("stream", name="stdout", text=text))
    if kind == "error":
        return executed(new_output("error", ename=text, evalue=text, traceback=[text]))
    if kind == "title":
        return executed(cells=[new_markdown_cell("# " + text)])
    return executed(new_output("display_data", data={kind: text}))


def a_figure(**kw):
    plot = figure(width=500, height=300, title="Step time", **kw)
    plot.line([1, 2, 4], [40, 22, 14], legend_label="measured")
    plot.scatter([1, 2, 4], [40, 22, 14], size=12)
    plot.add_tools(HoverTool(tooltips=[("nodes", "@x"), ("ms", "@y")], mode="vline"))
    return plot


def shown(model, text="A figure."):
    return new_output("display_data", data={FIGURE_MIME: json_item(model), "text/plain": text})


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_dead_in_the_page(name, tmp_path):
    kind, text = PAYLOADS[name]
    title = text if kind == "title" else "t"
    page = to_html(hostile(kind, text), tmp_path / "p.html", title).read_text()
    seen = live(page)
    assert seen.found == []
    assert seen.scripts == 1  # the page's own
    assert "default-src 'none'" in html.unescape(page)


def test_the_check_of_payloads_would_see_a_live_one():
    for bad in (f"<img src=x onerror={HIT}>", f"<a href='javascript:{HIT}'>", SVG, f"<iframe srcdoc='{HIT}'>"):
        assert live(bad).found


@pytest.mark.browser
def test_payloads_do_nothing_in_a_real_browser(tmp_path, visit, artifacts):
    cells = []
    for kind, text in PAYLOADS.values():
        cells += hostile(kind, text).cells
    nb = new_notebook(cells=cells)
    for cell in nb.cells:
        cell.pop("id", None)
    seen = visit(to_html(nb, tmp_path / "hostile.html", PAYLOADS["title"][1]))
    for link in seen.page.query_selector_all("main a"):
        assert (link.get_attribute("href") or "#").startswith(("#", "https:"))
    seen.page.wait_for_timeout(500)
    assert seen.page.evaluate("window.pwned") is None
    assert [r for r in seen.requests if not r.startswith(("file:", "data:"))] == []
    assert seen.complaints == []
    seen.page.screenshot(path=artifacts / "report-hostile.png", full_page=True)


@pytest.mark.browser
def test_a_hostile_figure_does_nothing_in_a_real_browser(tmp_path, visit):
    bad = Div(text=f'<img src="{REMOTE}.png" onerror="{HIT}"><b>shown</b>')
    bad.js_on_event("document_ready", CustomJS(code=HIT))
    plot = a_figure(name=f"</script><script>{HIT}</script>")
    plot.x_range.js_on_change("start", CustomJS(code=HIT))
    plot.js_on_event("mousemove", CustomJS(code=HIT))
    seen = visit(to_html(executed(shown(bad), shown(plot)), tmp_path / "p.html", "t"))
    box = seen.page.query_selector("#figure-2").bounding_box()
    seen.page.mouse.move(box["x"] + 200, box["y"] + 150)
    seen.page.mouse.wheel(0, 200)
    seen.page.wait_for_timeout(700)
    assert seen.page.evaluate("window.pwned") is None
    assert [r for r in seen.requests if not r.startswith(("file:", "data:", "blob:", REMOTE))] == []
    assert all("Content Security Policy" in c or "unsafe-eval" in c or "ERR_" in c for c in seen.complaints)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_live_without_a_network(tmp_path, visit, artifacts, scheme):
    nb = executed(shown(a_figure(), "Step time falls."), shown(a_figure()), cells=[new_markdown_cell("$\\frac{a}{b}$")])
    seen = visit(to_html(nb, tmp_path / "figures.html", "Figures"), scheme)
    assert seen.page.locator("figure.r-live").count() == 2
    assert seen.page.evaluate("Bokeh.documents.length") == 2
    assert seen.page.locator("mfrac").bounding_box()["height"] > 15  # drawn as a fraction
    box = seen.page.locator("#figure-1").bounding_box()
    seen.page.mouse.move(box["x"] + 240, box["y"] + 150)
    seen.page.wait_for_selector(".bk-tooltip:visible, .bk-Tooltip:visible", timeout=5000)
    seen.page.screenshot(path=artifacts / f"report-figures-{scheme}.png", full_page=True)
    assert seen.requests == [seen.page.url]
    assert seen.complaints == []


def test_bokehjs_is_in_the_page_once_and_only_if_there_is_a_figure(tmp_path):
    none = to_html(executed(new_output("stream", name="stdout", text="x")), tmp_path / "a.html", "t")
    assert none.stat().st_size < 60_000
    two = to_html(executed(shown(a_figure()), shown(a_figure())), tmp_path / "b.html", "t")
    assert live(two.read_text()).scripts == 4  # BokehJS, ours, and two that are data
    assert 1_200_000 < two.stat().st_size < 1_500_000


def test_a_figure_brings_the_bundles_that_its_models_need():
    assert len(scripts_for([])) == 0
    assert len(scripts_for([json_item(a_figure())])) == 1
    assert len(scripts_for([json_item(Div(text="x"))])) == 2
    assert len(scripts_for([json_item(a_figure(output_backend="webgl"))])) == 2


def test_figure_data_cannot_end_its_script_and_is_the_same_data():
    item = json_item(a_figure(name="</script><!--<script>\u2028"))
    text = as_json(item)
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text)["doc"] == json.loads(json.dumps(item["doc"]))


def test_words_stand_in_for_a_figure_where_scripts_do_not_run(tmp_path):
    page = to_html(executed(shown(a_figure(), "Falls from 40 to 14 ms.")), tmp_path / "p.html", "t").read_text()
    assert 'aria-label="Falls from 40 to 14 ms."' in page
    assert re.search(r'class="r-instead">Falls from 40 to 14 ms\.', page)


def test_tables_keep_classes_and_alignment():
    row = '<tr style="text-align: right; position: fixed"><th scope="row">a</th></tr>'
    clean = safe_html(f'<table class="dataframe" border="1">{row}</table>')
    assert 'class="dataframe"' in clean
    assert "text-align:right" in clean.replace(" ", "")
    assert "fixed" not in clean
    assert 'scope="row"' in clean


def test_formulas_are_mathml_in_text_but_not_in_code():
    text = safe_markdown(
        "A $x^2$ and `$y$`, and \\$5.\n\n$$\\frac{a}{b}$$\n\n\\begin{align}a &= b\\end{align}\n\n# H $z$"
    )
    assert text.count("<math") == 4
    assert "<code>$y$</code>" in text
    assert "$5" in text
    assert "<mfrac>" in safe_latex("$\\frac{a}{b}$")
    assert safe_markdown("$\\frac{$") == "<p><code>\\frac{</code></p>\n"


def test_links_within_the_page_stay_within_the_notebooks_own_names():
    assert safe_html('<a href="#part">x</a><p id="part">y</p>') == (
        '<a href="#nb-part" rel="noopener noreferrer">x</a><p id="nb-part">y</p>'
    )


def test_pictures_beside_the_notebook_are_embedded_and_others_are_not(tmp_path):
    folder = tmp_path / "labs"
    folder.mkdir()
    dot = base64.b64decode("R0lGODlhAQABAAAAACw=")
    (folder / "dot.gif").write_bytes(dot)
    (tmp_path / "secret.gif").write_bytes(dot)
    text = safe_markdown("![dot](dot.gif) ![out](../secret.gif) ![abs](/etc/hostname)", folder)
    assert text.count("data:image/gif;base64,") == 1
    assert text.count("<img") == 3


def test_a_flood_of_text_is_cut_and_says_so():
    text = safe_text("a" * (MAX_TEXT_CHARS + 5) + "<b>")
    assert "8 characters left out" in text
    assert len(text) < MAX_TEXT_CHARS + 200


def test_outputs_fall_back_to_what_can_be_shown(tmp_path):
    nb = executed(
        new_output("display_data", data={"text/html": "<script>1</script>", "text/plain": "only words"}),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"}),
        new_output("stream", name="stdout", text="one "),
        new_output("stream", name="stdout", text="two\n"),
    )
    page = to_html(nb, tmp_path / "p.html", "t").read_text()
    assert "only words" in page
    assert "IntSlider" not in page
    assert "An interactive control stands here in the notebook." in page
    assert "one two" in page
