"""The index of a batch and the PDF of a report, in a real Chromium."""

from __future__ import annotations

import copy
import re

import jsonschema
import nbformat
import pytest
from bokeh.embed import json_item
from bokeh.plotting import figure
from nbformat.v4 import new_code_cell, new_notebook, new_output

from aiinfra_widgets.errors import ReportError
from aiinfra_widgets.reports import pdf
from aiinfra_widgets.reports.batch.index import write_index
from aiinfra_widgets.reports.bokehjs import FIGURE_MIME
from aiinfra_widgets.reports.html import to_html
from aiinfra_widgets.reports.schemas import schema

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
HOSTILE = "<img src=x onerror=document.title='hit'><script>document.title='hit'</script>"


def key(at="1 node", predicted=0.01, measured=0.012, low=0.011, high=0.015):
    return {
        "key": at, "at": at, "label": "Step time", "quantity": "step_time_s", "unit": "s", "predicted": predicted,
        "measured": measured, "low": low, "high": high, "relative_error": predicted / measured - 1, "method": "measured", "word": None,
    }  # fmt: skip


def report(id_, status="done", error=None, keys=(), changes=()):
    ended = status in {"done", "failed"}
    return {
        "id": id_, "name": id_, "notebook": "lab.ipynb", "parameters": {"nodes": 1}, "varied": {"nodes": 1}, "status": status,
        "error": error, "started_at": None, "ended_at": None, "duration_s": 75.0 if ended else None, "attempt": 1 if ended else None,
        "files": {"html": f"reports/{id_}/lab.html"} if ended else {}, "key_results": list(keys), "changes": list(changes),
    }  # fmt: skip


@pytest.fixture
def batch():
    """A record with every kind of report in it, one of them hostile."""
    at = "2026-01-02T03:04:05.678+00:00"
    error = {"name": "ValueError", "message": f"the loss is not a number {HOSTILE}\nsecond line", "cell": 3}
    moved = {"kind": "result", "at": "Step time, 1 node", "text": "measured 6 ms became 12 ms (+100%), worse"}
    made = {
        "format": 1, "title": f"Nightly {HOSTILE}", "status": "failed", "started_at": at, "updated_at": at,
        "starts": [{"started_at": at, "ended": "killed"}, {"started_at": at, "ended_at": at, "ended": "failed"}],
        "file": "nightly.yaml", "counts": {"done": 1, "failed": 1, "under way": 1, "waiting": 1}, "share_cores": False,
        "notes": ["1 report needs all 2 cores"], "previous": {"folder": "../mon", "started_at": at}, "gone": ["old"],
        "machine": {"cpu": "cpu", "cores": 2, "memory_bytes": 2**33, "gpus": [], "system": "Linux"}, "versions": {"python": "3.11"},
        "reports": [
            report("training-nodes=1", keys=[key(str(n)) for n in range(5)], changes=[moved]),
            report("broken", "failed", error, changes=[{"kind": "outcome", "at": "", "text": "done became failed"}]),
            report("now", "under way"), report("later", "waiting"),
        ],
    }  # fmt: skip
    jsonschema.validate(made, schema("batch"))
    return made


@pytest.mark.parametrize("status", ["running", "done", "failed", "interrupted"])
def test_every_state_has_a_page_and_only_a_running_one_looks_again(batch, tmp_path, status):
    page = write_index({**batch, "status": status}, tmp_path / "index.html").read_text()
    assert ('http-equiv="refresh"' in page) == (status == "running")
    assert ("The same command resumes it" in page) == (status == "interrupted")
    assert "<script" not in page
    assert page.count("the loss is not a number") == 2
    assert "second line" not in page


def test_a_key_result_without_a_spread_or_with_zeros_is_drawn_or_left_out(batch, tmp_path):
    bare, zero = copy.deepcopy(batch), copy.deepcopy(batch)
    bare["reports"][0]["key_results"] = [key(low=None, high=None)]
    zero["reports"][0]["key_results"] = [{**key(), "predicted": 0.0, "measured": 0.0, "low": 0.0, "high": 0.0}]
    drawn = [
        write_index(b, tmp_path / "i.html").read_text().split("<h2>Reports")[1].count("i-measured")
        for b in (bare, zero)
    ]
    assert drawn == [2, 1]  # the legend's point is always there


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_index_in_a_browser(batch, tmp_path, chromium, artifacts, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = write_index(batch, tmp_path / "index.html")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(
            viewport={"width": 1200, "height": 900}, color_scheme=scheme, offline=True
        ).new_page()
        requests, complaints = [], []
        page.on("request", lambda r: requests.append(r.url))
        page.on("console", lambda m: complaints.append(m.text))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(path.as_uri())
        assert "hit" not in page.title().removeprefix(f"Nightly {HOSTILE}")
        assert page.locator("img").count() == 0
        page.click("text=broken >> nth=0")
        assert page.locator("article:target h3").inner_text().strip().endswith("nodes 1")
        page.click("text=2 more")
        table = page.locator("#training-nodes\\=1 table").first
        assert table.locator("tbody tr").first.locator("td").all_inner_texts()[:5] == [
            "0",
            "Step time",
            "10 ms",
            "12 ms",
            "-17 %",
        ]
        strip = table.locator("svg").first
        predicted = strip.locator(".i-predicted").bounding_box()["x"]
        measured = strip.locator(".i-measured").bounding_box()
        whisker = strip.locator(".i-whisker").bounding_box()
        assert predicted < whisker["x"] < measured["x"] + measured["width"] / 2 < whisker["x"] + whisker["width"]
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.set_viewport_size({"width": 420, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # a telephone
        page.set_viewport_size({"width": 1200, "height": 900})
        page.screenshot(path=artifacts / f"batch-index-{scheme}.png", full_page=True)
        assert (set(requests), complaints) == ({path.as_uri()}, [])
        browser.close()


@pytest.mark.browser
def test_a_pdf_holds_the_figures_of_the_page(tmp_path, chromium, monkeypatch):
    plot = figure(height=250, sizing_mode="stretch_width")
    plot.line([1, 2, 4], [40, 22, 14])
    shown = new_output("display_data", data={FIGURE_MIME: json_item(plot), "text/plain": "Falls."})
    monkeypatch.setenv("CHROMIUM", chromium)
    pages = {}
    for name, outputs in (("with", [shown, shown]), ("without", [])):
        cell = new_code_cell("1", outputs=outputs, execution_count=1)
        made = to_html(nbformat.from_dict(new_notebook(cells=[cell])), tmp_path / f"{name}.html", "t")
        pages[name] = pdf.to_pdf(made).read_bytes()
    count = {k: len(re.findall(rb"/Subtype\s*/Image", v)) for k, v in pages.items()}
    assert count["with"] >= count["without"] + 2
    assert all(re.search(rb"/MediaBox \[0 0 59[45]\.\d+ 84[12]\.\d+\]", v) for v in pages.values())  # A4


def test_without_a_chromium_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(ReportError, match="install one, set CHROMIUM to its path, or leave --pdf out"):
        pdf.find_chromium()
    fetched = tmp_path / "chromium-1234" / "chrome-linux" / "chrome"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert pdf.find_chromium() == str(fetched)


def test_a_chromium_that_prints_nothing_is_told_with_its_last_words(monkeypatch, tmp_path):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho no display\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(program))
    (tmp_path / "p.html").touch()
    with pytest.raises(ReportError, match=r"p\.html: no PDF was printed.*exit code 7; last output: no display"):
        pdf.to_pdf(tmp_path / "p.html")
    assert not (tmp_path / "p.pdf").exists()
