from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from aiinfra_widgets.errors import ReportError, StorageError
from aiinfra_widgets.reports.run import report

pytestmark = pytest.mark.labs

RESULTS = ("results", "from aiinfra_widgets.reports.results import save\nsave({'nodes': nodes, 'lr': lr})")
FIGURE = """\
from bokeh.embed import json_item
from bokeh.plotting import figure
from IPython.display import display
plot = figure(height=200, width=400)
plot.line([1, 2], [3, 4])
display({"application/vnd.aiinfra.bokeh+json": json_item(plot), "text/plain": "Rises."}, raw=True)
"""


def read(result):
    return nbformat.read(result.notebook, as_version=4)


def statuses(result):
    return [c["status"] for c in result.data["cells"]]


def papermill_statuses(result):
    return [c.metadata.papermill.status for c in read(result).cells if c.cell_type == "code" and c.source]


def test_a_report_holds_notebook_page_and_results(write, tmp_path):
    lab = write(("md", "# Two *nodes*\nText."), "print('working')", FIGURE, RESULTS)
    said, ended = [], []
    result = report(
        lab,
        {"nodes": "4"},
        tmp_path / "out",
        progress=lambda *step: said.append(step),
        on_end=lambda pid: ended.append(psutil.pid_exists(pid)),
    )
    assert (result.ok, result.status, result.error) == (True, "done", "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["lab.html", "lab.ipynb", "results.json"]
    data = json.loads(result.results.read_text())
    assert data == result.data
    assert set(data) == {
        *("format", "status", "notebook", "parameters", "given", "cells", "error", "results", "started_at", "ended_at"),
        *("duration_s", "versions", "machine", "files"),
    }
    assert data["results"] == {"nodes": 4, "lr": 0.001}
    assert data["parameters"] == {"workload": "digits-mlp", "nodes": 4, "lr": 0.001, "overlap": False}
    assert data["given"] == ["nodes"]
    assert data["error"] is None
    assert statuses(result) == ["executed"] * 5
    assert all(c["duration_s"] >= 0 for c in data["cells"])
    assert papermill_statuses(result) == ["completed"] * 5
    assert [s[:2] for s in said] == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert ended == [False]  # told once, when the kernel was gone
    page = result.html.read_text()
    assert "<title>Two nodes</title>" in page
    assert page.count("<h1>") == 1  # the notebook's own heading became the page's
    assert "Completed" in page
    assert "data-figure" in page


@pytest.mark.parametrize(
    ("parameters", "says"),
    [({"nodse": 2}, "did you mean 'nodes'"), ({"nodes": "x"}, "a whole number"), ({"lr": float("nan")}, "finite")],
)
def test_a_wrong_parameter_costs_nothing(write, tmp_path, parameters, says):
    lab = write("open('ran', 'w')")
    with pytest.raises(ReportError, match=says):
        report(lab, parameters, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab.ipynb"]


def test_a_failing_cell_is_in_all_three_files(write, tmp_path):
    lab = write("print('before')", "def deep(x):\n    return 1 / x\ndeep(0)", "print('after')", RESULTS)
    result = report(lab, {}, tmp_path / "out")
    assert not result.ok
    assert result.error == "cell 3: ZeroDivisionError: division by zero"
    assert statuses(result) == ["executed", "executed", "failed", "not run", "not run"]
    assert papermill_statuses(result) == ["completed", "completed", "failed", "pending", "pending"]
    error = result.data["error"]
    assert (error["name"], error["cell"]) == ("ZeroDivisionError", 3)
    assert "deep(0)" in error["traceback"]
    assert "\x1b" not in error["traceback"]
    assert result.data["results"] is None
    assert any("papermill-error-cell-tag" in c.metadata.get("tags", []) for c in read(result).cells)
    page = result.html.read_text()
    assert 'class="r-banner"' in page
    assert "2 code cells were not run." in page
    assert "papermill encountered" not in page


def test_results_saved_before_a_failure_are_kept(write, tmp_path):
    result = report(write(RESULTS, "raise RuntimeError('late')"), {}, tmp_path / "out")
    assert result.status == "failed"
    assert result.data["results"] == {"nodes": 2, "lr": 0.001}


def test_a_notebook_that_leaves_early_is_not_done(write, tmp_path):
    result = report(write("import sys\nsys.exit(0)", RESULTS), {}, tmp_path / "out")
    assert statuses(result) == ["executed", "executed", "not run"]
    assert result.status == "failed"
    assert "1 of 3 cells were not run" in result.error


def test_an_error_that_the_cell_announces_is_no_failure(write, tmp_path):
    result = report(write(("raises-exception", "1 / 0"), RESULTS), {}, tmp_path / "out")
    assert result.ok
    assert statuses(result) == ["executed"] * 3
    assert not any("papermill-error-cell-tag" in c.metadata.get("tags", []) for c in read(result).cells)


def test_a_report_is_never_overwritten(write, tmp_path):
    lab, out = write("1"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    report(lab, {}, out)
    before = {p: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(ReportError, match="never overwritten"):
        report(lab, {}, out)
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_an_executed_notebook_can_be_run_again_without_its_old_parameters(write, tmp_path):
    first = report(write(RESULTS), {"nodes": 8}, tmp_path / "one")
    second = report(first.notebook, {}, tmp_path / "two")
    assert second.data["results"]["nodes"] == 2
    assert len(second.data["cells"]) == 2


def test_braces_spaces_and_unicode_in_paths(write, tmp_path):
    lab = write("print(nodes)", name="my {lab} ü/lab {nodes}.ipynb")
    result = report(lab, {"nodes": 3}, tmp_path / "out {x} ü")
    assert result.ok
    assert result.notebook.name == "lab {nodes}.ipynb"


def test_a_folder_that_cannot_be_made_is_a_storage_error(write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        report(write("1"), {}, tmp_path / "file" / "out")


def test_the_kernel_is_this_python_whatever_is_installed(write, tmp_path, monkeypatch):
    spec = tmp_path / "share" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "bad", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    lab = write(
        "import sys, os\nassert sys.executable == " + repr(sys.executable), "assert not os.environ.get('DISPLAY2')"
    )
    notebook = nbformat.read(lab, as_version=4)
    notebook.metadata.kernelspec = {"name": "not-installed", "display_name": "x", "language": "python"}
    nbformat.write(notebook, lab)
    assert report(lab, {}, tmp_path / "out").ok


def test_the_kernel_is_headless_works_in_the_notebooks_folder_behind_no_open_port(write, tmp_path):
    lab = write(
        "import os, pathlib, psutil",
        "assert os.environ['AIINFRA_HEADLESS'] == '1'",
        "assert pathlib.Path('lab.ipynb').exists()",
        "ports = [c.laddr for c in psutil.Process().net_connections('inet') if c.status == 'LISTEN']",
        "assert len(ports) <= 1 and all(p.ip == '127.0.0.1' for p in ports), ports  # ipykernel's own, for forks",
    )
    before = dict(os.environ), Path.cwd()
    result = report(lab, {}, tmp_path / "out")
    assert result.error == ""
    assert (dict(os.environ), Path.cwd()) == before


def test_no_file_of_a_report_tells_where_or_with_what_secret_it_was_made(write, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_API_KEY", "s3cret-s3cret")
    lab = write(
        "import os, sys, pathlib",
        "print(pathlib.Path.cwd(), sys.prefix, os.environ['LAB_API_KEY'], pathlib.Path.home() / 'x')",
        "from aiinfra_widgets.reports.results import save\nsave({'where': pathlib.Path.cwd()})",
        "raise OSError(str(pathlib.Path.cwd()))",
    )
    result = report(lab, {}, tmp_path / "out")
    assert not result.ok
    private = [str(tmp_path), sys.prefix, "s3cret", str(Path.home() / "x")]
    for path in (result.notebook, result.html, result.results):
        text = path.read_text()
        assert [p for p in private if p in text] == [], path.name
    assert result.data["results"] == {"where": "{notebook folder}"}


@pytest.mark.browser
def test_a_failed_report_in_a_real_browser(write, tmp_path, visit, artifacts):
    lab = write(("md", "# A lab that fails\n\n$$T = \\frac{c}{n}$$"), FIGURE, "1 / 0", RESULTS)
    seen = visit(report(lab, {"nodes": 3}, tmp_path / "out").html)
    page = seen.page
    assert page.locator("figure.r-live").count() == 1
    assert page.locator(".r-banner").inner_text().startswith("ZeroDivisionError (cell 4)")
    assert page.locator("details.r-code[open]").count() == 1  # the one that failed
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.r-code[open]").count() == 5
    page.screenshot(path=artifacts / "report-failed.png", full_page=True)
    assert seen.requests == [page.url]
    assert seen.complaints == []
