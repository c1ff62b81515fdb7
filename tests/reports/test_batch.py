"""A batch of real reports: killed in the middle and resumed, stopped, made again, compared with the one before."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import psutil
import pytest

from aiinfra_widgets.reports.batch.folder import end_marked
from aiinfra_widgets.reports.schemas import schema

pytestmark = pytest.mark.faults

MARK = "AIINFRA_BATCH_TEST"
COMMAND = [sys.executable, "-c", "from aiinfra_widgets.cli import main; main()", "report"]
PARAMETERS = "number = 0\nfail = False\nhold = ''\nslowness = 1.0\n"
WORK = """\
import pathlib, subprocess, sys, time
if hold:
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)  # as ranks are
    pathlib.Path(hold, 'holding').touch()
    while not pathlib.Path(hold, 'go').exists():
        time.sleep(0.05)
if fail:
    raise ValueError(f'planted in {number}\\nwith a second line')
"""
SAVE = """\
from aiinfra_widgets.reports.results import save
took = {'predicted': 1.0, 'measured': slowness, 'measured_quartiles': [0.9 * slowness, 1.1 * slowness],
        'relative_error': 1.0 / slowness - 1, 'method': 'measured', 'predicted_method': 'modelled'}
save({'status': 'done', 'experiment': 'training', 'segments': [{'nodes': 1, 'quantities': {'step_time_s': took}}]})
"""


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


class Batches:
    """Batches of one light notebook, run as a person or cron runs them."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder, self.mark = folder, mark
        self.environment = {**os.environ, MARK: mark}

    def file(self, *reports: str, title: str = "nightly") -> Path:
        """Write a batch file; each report is its parameters as YAML."""
        path = self.folder / "batch.yaml"
        rows = "".join(f"      - {{{r}}}\n" for r in reports)
        path.write_text(f"title: {title}\nshare_cores: true\nreports:\n  - notebook: lab.ipynb\n    list:\n{rows}")
        return path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command in a group that it leads."""
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run the command to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def left(self) -> list[psutil.Process]:
        """Living processes of this test."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


@pytest.fixture
def batches(write, tmp_path):
    """See Batches. Fails when a process survives the test."""
    write(WORK, ("results", SAVE), parameters=PARAMETERS)
    made = Batches(tmp_path, uuid.uuid4().hex)
    yield made
    left = made.left()
    for process in left:
        process.kill()
    assert not left, [p.cmdline() for p in left]


def record_of(out: Path) -> dict:
    """The record, which must fit the schema; and so must every report's."""
    found = json.loads((out / "batch.json").read_text())
    jsonschema.validate(found, schema("batch"))
    for path in out.glob("reports/*/results.json"):
        jsonschema.validate(json.loads(path.read_text()), schema("results"))
    return found


def whole(out: Path) -> dict[str, bytes]:
    """Every file of every whole report."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.glob("reports/*/*")}


@pytest.mark.slow  # that nothing is lost when it is stopped is shown by the test of Ctrl-C below
@pytest.mark.parametrize("reports", [6, 20])
def test_a_batch_survives_kill_9_with_two_planted_failures(batches, tmp_path, reports):
    out, fails, holds = tmp_path / "out", {1, reports - 1}, reports // 2
    rows = [
        f"number: {n}" + ", fail: true" * (n in fails) + f", hold: {tmp_path}" * (n == holds) for n in range(reports)
    ]
    first = batches.start(str(batches.file(*rows)), "-j", "2", "-o", "out")
    wait_for(lambda: (tmp_path / "holding").exists() and len(list(out.glob("reports/*"))) >= holds)
    # A second start, as cron's of the next night, is told who is at it, and changes nothing.
    code, _, err = batches.run("batch.yaml", "-o", "out")
    assert code == 1
    assert f"process {first.pid} on " in err
    wait_for(lambda: len(list(out.glob("reports/*"))) >= reports - 1)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    wait_for(lambda: not batches.left(), 60)  # kernels and what they started, too
    before = whole(out)
    assert len(list(out.glob("reports/*"))) == reports - 1
    assert len(list(out.glob("under-way/*"))) == 1

    (tmp_path / "go").touch()
    code, said, err = batches.run("batch.yaml", "-j", "2", "-o", "out")
    assert code == 2, err
    after = whole(out)
    assert {k: v for k, v in after.items() if k in before} == before  # what is done stays, to the byte
    [half] = out.glob("aside/*")
    assert (half / "job.json").exists()
    assert not list(out.glob("under-way/*"))
    found = record_of(out)
    assert found["status"] == "failed"
    assert found["counts"] == {"done": reports - 2, "failed": 2, "under way": 0, "waiting": 0}
    assert [s["ended"] for s in found["starts"]] == ["killed", "failed"]
    assert [r["parameters"]["number"] for r in found["reports"]] == list(range(reports))
    assert [r["status"] == "failed" for r in found["reports"]] == [n in fails for n in range(reports)]
    assert [r["attempt"] for r in found["reports"]] == [2 if n == holds else 1 for n in range(reports)]
    for r in found["reports"]:
        assert all((out / name).is_file() for name in r["files"].values())
        assert {"html", "ipynb", "results", "log"} == set(r["files"])
        assert [k["measured"] for k in r["key_results"]] == ([] if r["status"] == "failed" else [1.0])
    page = html.unescape((out / "index.html").read_text())
    assert len(re.findall(r"planted in 1\b", page)) == 2  # under what failed, and at the report
    assert "with a second line" not in page
    assert "planted in 1" in said
    links = re.findall(r'href="([^"#]+)"', page)
    assert len(links) > 4 * reports
    assert all((out / unquote(link)).exists() for link in links)

    code, _, _ = batches.run("batch.yaml", "-o", "out", "--quiet")
    assert (code, whole(out)) == (2, after)


def test_ctrl_c_puts_the_half_aside_and_says_interrupted(batches, tmp_path):
    out = tmp_path / "out"
    process = batches.start(str(batches.file(f"hold: {tmp_path}", "number: 1")), "-o", "out", "-q")
    wait_for((tmp_path / "holding").exists)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "interrupted: 2 waiting" in said
    assert not batches.left()
    found = record_of(out)
    assert (found["status"], found["counts"]["waiting"], found["counts"]["under way"]) == ("interrupted", 2, 0)
    [half] = out.glob("aside/*")
    assert json.loads((half / "results.json").read_text())["status"] == "failed"  # saved as far as it went
    assert not list(out.glob("reports/*"))
    assert not list(out.glob("under-way/*"))
    assert (out / "batch.log").read_text().count("started") == 1


@pytest.mark.slow
def test_what_changed_is_made_again_and_what_moved_since_the_batch_before_is_said(batches, tmp_path):
    def reports():
        return {r["parameters"]["number"]: r for r in record_of(tmp_path / "tue")["reports"]}

    batches.file("number: 1", "number: 2", "number: 3, fail: true")
    assert batches.run("batch.yaml", "-j", "3", "-o", "mon")[0] == 2
    # The next night one is slower, one fails no more, one is gone, and one is new.
    lab = tmp_path / "lab.ipynb"
    lab.write_text(lab.read_text().replace("if fail:", "if False:"))
    batches.file("number: 1", "number: 3, fail: true", "number: 4")
    slow = ["number: 1", "number: 3, fail: true", "number: 4"]
    path = batches.file(*slow)
    path.write_text(path.read_text().replace("lab.ipynb\n", "lab.ipynb\n    parameters: {slowness: 3.0}\n"))
    code, said, err = batches.run("batch.yaml", "-j", "3", "-o", "tue")
    assert (code, said.split(";")[0]) == (0, "done: 3 done"), err
    found = record_of(tmp_path / "tue")
    assert found["previous"]["folder"] == "../mon"
    assert found["gone"] == ["lab-number=2"]
    changes = {n: [(c["kind"], c["text"]) for c in r["changes"]] for n, r in reports().items()}
    assert changes[1] == [
        ("parameters", "other parameters: slowness"),
        ("result", "measured 1 s became 3 s (+200%), worse"),
    ]
    assert changes[3][0] == ("outcome", "failed became done")
    assert changes[4] == [("new", "not in the batch before")]
    page = html.unescape((tmp_path / "tue" / "index.html").read_text())
    assert "measured 1 s became 3 s (+200%), worse" in page

    # The same folder again with another parameter: only what it touches is made again, and the old one is kept.
    path.write_text(path.read_text().replace("number: 4", "number: 4, hold: ''"))
    path.write_text(path.read_text().replace("slowness: 3.0", "slowness: 4.0"))
    assert batches.run("batch.yaml", "-j", "3", "-o", "tue")[0] == 0
    assert {r["key_results"][0]["measured"] for r in reports().values()} == {4.0}
    assert (
        len(list((tmp_path / "tue" / "aside").iterdir())) == 2
    )  # 1 and 3; 4 got another name with its second parameter


@pytest.mark.slow
def test_wall_time_a_process_that_dies_and_retry(batches, tmp_path, write):
    write("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(60)", name="dies.ipynb")
    write("import time; time.sleep(600)", name="sleeps.ipynb")
    write("import pathlib; assert pathlib.Path('mended').exists(), 'not mended'", name="mends.ipynb")
    (tmp_path / "b.yaml").write_text(
        "share_cores: true\nreports:\n  - notebook: dies.ipynb\n  - {notebook: sleeps.ipynb, wall_time: 8 s}\n  - notebook: mends.ipynb\n"
    )
    code, said, err = batches.run("b.yaml", "-j", "3", "-o", "out")
    assert code == 2, err
    errors = {r["id"]: r["error"] for r in record_of(tmp_path / "out")["reports"]}
    assert errors["dies"]["name"] == "ReportProcessDied"
    assert "was ended by SIGKILL; out of memory is the usual reason" in errors["dies"]["message"]
    assert errors["sleeps"]["name"] == "WallTimeLimit"
    assert "wall-time limit of 8 s" in errors["sleeps"]["message"]
    assert (tmp_path / "out/reports/sleeps/sleeps.html").exists()
    assert "mends: AssertionError: not mended" in said
    (tmp_path / "mended").touch()
    (tmp_path / "b.yaml").write_text((tmp_path / "b.yaml").read_text().replace("wall_time: 8 s", "wall_time: 3 s"))
    assert batches.run("b.yaml", "-o", "out")[0] == 2
    assert not (tmp_path / "out/aside").exists()  # a limit is no reason to make a report again
    (tmp_path / "b.yaml").write_text("title: b\nreports: [{notebook: mends.ipynb}]\n")
    assert batches.run("b.yaml", "-o", "out", "--retry")[0] == 0
    assert [p.name.partition("-")[0] for p in (tmp_path / "out/aside").iterdir()] == ["mends"]
    assert record_of(tmp_path / "out")["reports"][0]["attempt"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["b.yaml", "-o", "full"], "holds mine.txt, and no batch", id="a-folder-of-something-else"),
        pytest.param(["b.yaml", "--previous", "none"], "none: holds no batch.json to compare with", id="no-previous"),
        pytest.param(
            ["b.yaml", "-p", "nodes", "2"], "-p and --timeout are for one notebook; in b.yaml they are", id="p"
        ),
        pytest.param(["lab.ipynb", "-j", "2"], "-j: for a batch file (.yaml), and lab.ipynb is none", id="j"),
        pytest.param(["b.yaml", "--pdf"], "CHROMIUM is set to '/none/chromium', which is no program", id="no-chromium"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_runs(batches, tmp_path, words, says):
    (tmp_path / "b.yaml").write_text("reports: [{notebook: lab.ipynb}]\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    batches.environment["CHROMIUM"] = "/none/chromium"
    code, out, err = batches.run(*words)
    assert says in err
    assert (code, out) == (1, "")
    assert not (tmp_path / "report").exists()


def test_nothing_is_left_of_a_report_that_was_told_to_end(batches):
    mark = uuid.uuid4().hex
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    environment = {**batches.environment, "AIINFRA_REPORT_MARK": mark}
    process = subprocess.Popen([sys.executable, "-c", stubborn], env=environment, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    assert end_marked(mark, wait_s=0.2) == 1
    assert not psutil.pid_exists(process.pid)
    process.wait()
