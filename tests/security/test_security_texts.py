"""Texts that a user can set, in every page that shows them: they are read, and never run. Looked at in a real Chromium."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pytest
from attacks import HIT, PAYLOADS

from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.writer import EventWriter

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-dev-shm-usage",
)
EVERY = " | ".join(PAYLOADS.values())
#: What a page that came alive looks like: it has run, or would at a touch.
ALIVE = """() => { const all = [...document.querySelectorAll('*')];
  for (const e of all) for (const kind of ['mouseover', 'focus', 'toggle', 'error', 'click']) {
    if (kind === 'click' && e.matches('a[href^="http"], a[download], button, input')) continue;
    e.dispatchEvent(new Event(kind)) }
  const acts = a => /^on/i.test(a.name) || /^\\s*(javascript:|vbscript:|data:text)/i.test(a.value);
  const bad = e => [...e.attributes].filter(acts).map(a => `${e.tagName} ${a.name}`);
  const tags = all.filter(e => ['IFRAME', 'OBJECT', 'EMBED', 'BASE', 'FORM', 'SCRIPT'].includes(e.tagName));
  return { pwned: window.pwned ?? 0, found: [...all.flatMap(bad), ...tags.map(e => e.tagName)] } }"""


@pytest.fixture(scope="module")
def window(chromium: str) -> Iterator[Any]:
    """One window for all tests; nothing that it asks for goes to the network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        page = browser.new_page()
        page.route("**/*", lambda route: route.abort() if route.request.url.startswith("http") else route.continue_())
        yield page
        browser.close()


def alive(window: Any, body: str) -> dict[str, Any]:
    """Show HTML as a page, touch everything, and return what came alive."""
    window.goto("about:blank")  # a window that is only given other content keeps its variables
    window.set_content(body if "<html" in body else f"<!doctype html><html><body>{body}</body></html>")
    window.wait_for_timeout(150)
    seen: dict[str, Any] = window.evaluate(ALIVE)
    window.wait_for_timeout(50)
    seen["pwned"] = window.evaluate("() => window.pwned ?? 0")
    return seen


def test_a_live_payload_is_seen(window: Any) -> None:
    for name in ("script", "picture", "svg", "frame", "end of a script", "end of a title"):
        assert alive(window, PAYLOADS[name])["pwned"], name
    for name in ("attribute", "attribute, single"):
        wrapped = f'<p title="{PAYLOADS[name]}">x</p>' if name == "attribute" else f"<p title='{PAYLOADS[name]}'>x</p>"
        assert alive(window, wrapped)["found"], name


@pytest.fixture
def hostile(runs: Path) -> RunDir:
    """A run whose every text is a payload: its note, its log, what its events say, and a name of a machine."""
    machine = found()
    run = layout.create(runs, "training", spec_of("training", {"data_dir": EVERY}), machine, note=EVERY)
    manifest = run.read_manifest()
    run.manifest.write_text(json.dumps({**manifest, "versions": {EVERY: EVERY}, "machine_id": EVERY}))
    event = EventWriter(run, 0, 0)
    event("started", pid=1, incarnation=0)
    event("segment", segment=0, spec=spec_of("training", {}).model_dump(), tick=0, nodes=[0], cause=EVERY)
    event("applied", request=EVERY, verb="stop", by=EVERY, tick=1, changes={}, cost_s=0.1)
    event("refused", request=EVERY, verb="stop", by=EVERY, reason=EVERY, tick=1)
    event("rank-lost", node=1, tick=1, message=EVERY, ranks=[1])
    event("error", message=EVERY, traceback=EVERY, tick=1)
    event.close()
    for name, data in (
        ("samples/0-0.csv", "tick,t_s,nodes,segment,step_time_s\n1,1.0,1,0,0.1\n"),
        ("logs/0-0.log", EVERY),
    ):
        (run.path / name).write_text(data)
    (run.path / "outcomes" / "0.json").write_text(json.dumps({"state": "failed", "message": EVERY, "tick": 1}))
    return run


def texts(widget: Any, seen: set[int] | None = None) -> Iterator[str]:
    """Every HTML that a tree of widgets shows, with what the front end makes of labels: text."""
    seen = set() if seen is None else seen
    if id(widget) in seen:
        return
    seen.add(id(widget))
    if isinstance(widget, ipw.HTML):
        yield widget.value
    if getattr(widget, "description_allow_html", False):
        yield widget.description
    for child in getattr(widget, "children", ()):
        yield from texts(child, seen)


def test_a_lab_and_the_run_browser(window: Any, hostile: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiinfra_widgets.widgets.lab import Lab
    from aiinfra_widgets.widgets.runs import Runs, table_html
    from aiinfra_widgets.widgets.runs_compare import side_by_side_html

    browser = Runs()
    for row in browser.on_page():
        browser.reading.told(row)
    table = table_html(browser.table(10), 3)
    assert html.escape(PAYLOADS["script"]) in table, "the note is there, to be read"
    sides = browser.segments(hostile.id)
    lab = Lab("training")
    lab.open(hostile.id)
    pages = {
        "table": table,
        "lab": "".join(texts(lab._the_screen().root)),
        "compared": side_by_side_html(sides[0], sides[0]),
    }
    assert "alert" in pages["lab"] or "window.pwned" in pages["lab"], "the lab says what failed"
    for what, body in pages.items():
        seen = alive(window, body)
        assert (seen["pwned"], seen["found"]) == (0, []), what


def test_the_reports_and_the_class_view(window: Any, runs: Path, tmp_path: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    from aiinfra_widgets.course.class_page import page
    from aiinfra_widgets.course.classroom import Classroom, Guess
    from aiinfra_widgets.reports.html import to_html

    outputs = [new_output("stream", name="stdout", text=EVERY)]
    outputs += [
        new_output("display_data", data={kind: EVERY})
        for kind in ("text/html", "text/markdown", "text/plain", "text/latex")
    ]
    cells = [
        new_markdown_cell("# " + PAYLOADS["end of a title"]),
        new_markdown_cell(EVERY),
        new_code_cell(EVERY, outputs=outputs, execution_count=1),
    ]
    nb: nbformat.NotebookNode = new_notebook(cells=cells)
    path = to_html(nb, tmp_path / "p.html", EVERY)
    seen = alive(window, path.read_text())
    assert seen["pwned"] == 0
    assert [f for f in seen["found"] if f != "SCRIPT"] == [], "the page's own script is there, let in by its hash"
    guess = Guess(EVERY, EVERY, EVERY, 2.0, 1.0, EVERY)
    seen = alive(window, page(Classroom([guess], {EVERY: EVERY})))
    assert (seen["pwned"], seen["found"]) == (0, [])


def test_the_index_of_a_batch(window: Any, tmp_path: Path) -> None:
    from aiinfra_widgets.reports.batch.index import write_index

    at = "2026-01-01T00:00:00+00:00"
    key = {
        "at": EVERY,
        "label": EVERY,
        "quantity": "step_time_s",
        "unit": "s",
        "predicted": 1.0,
        "measured": 2.0,
        "low": 1.5,
        "high": 3.0,
    }
    key |= {
        "word": EVERY,
        "how": EVERY,
        "n": 3,
        "name": EVERY,
        "source": EVERY,
        "relative_error": 0.5,
        "verdict": EVERY,
        "method": EVERY,
        "run": EVERY,
        "experiment": EVERY,
        "segment": 0,
    }
    report = {
        "id": EVERY, "name": EVERY, "status": "failed", "duration_s": 1.0, "files": {"html": EVERY, "log": "javascript:" + HIT},
        "error": {"name": EVERY, "message": EVERY, "cell": EVERY}, "varied": {EVERY: EVERY}, "key_results": [key],
        "changes": [{"kind": EVERY, "at": EVERY, "text": EVERY}],
    }  # fmt: skip
    batch = {
        "title": EVERY, "status": "failed", "started_at": at, "updated_at": at, "starts": [], "file": EVERY, "notes": [EVERY],
        "machine": {"cpu": EVERY, "cores": 2}, "counts": defaultdict(int, failed=1), "gone": [EVERY], "reports": [report],
        "previous": {"folder": EVERY, "started_at": at}, "versions": {"aiinfra-lab": EVERY},
    }  # fmt: skip
    seen = alive(window, write_index(batch, tmp_path / "index.html").read_text())
    assert (seen["pwned"], seen["found"]) == (0, [])


def test_the_sidebar_and_the_table_of_runs(window: Any, repo: Path) -> None:
    """The scripts that draw them, with rows whose every text is a payload."""
    static = repo / "aiinfra_widgets" / "jupyter" / "labextension" / "static"
    pages = {"http://127.0.0.1:9/" + p.name: p.read_text() for p in static.glob("*.js")}
    pages["http://127.0.0.1:9/runs.js"] = (repo / "aiinfra_widgets" / "widgets" / "static" / "runs.js").read_text()

    def answer(route: Any) -> None:
        url = route.request.url
        if url in pages:
            route.fulfill(body=pages[url], content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><body></body>", content_type="text/html")

    window.route("http://127.0.0.1:9/**", answer)
    window.goto("http://127.0.0.1:9/")
    shown = window.evaluate(
        """async text => { const { runCard } = await import('/run_card.js'), { default: table } = await import('/runs.js');
          const cost = { label: text, text, method: text, how: text };
          const run = { title: text, state: text, about: text, note: text, message: text, next: text, final: true, ok: false,
            nodes: 1, most_nodes: 2, most_why: text, tick: text, ticks: 1, id: text, path: text, costs: [cost], left_s: 1 };
          const card = runCard({}, {}, (t, v) => t, text, () => {});
          card.draw(run); document.body.append(card.node);
          const keys = ['when', 'experiment', 'state', 'nodes', 'quantity', 'predicted', 'measured', 'error', 'note', 'id'];
          const row = Object.fromEntries([...keys, 'kind', 'sign', 'state_word', 'message'].map(k => [k, text]));
          const data = { rows: [row], columns: keys.map(k => [k, text, 'aiinfra-wide']), picked: [],
            words: { pick: text, picked: text, caption: text } };
          const el = document.createElement('div'); document.body.append(el);
          table.render({ model: { get: k => data[k], set: () => {}, save_changes: () => {}, on: () => {}, off: () => {} }, el });
          return document.body.textContent.split(text).length - 1 }""",
        EVERY,
    )
    assert shown > 15, "the texts are there, to be read"
    seen = window.evaluate(ALIVE)
    assert (seen["pwned"], seen["found"]) == (0, [])
