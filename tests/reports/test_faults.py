from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from papermill import engines

from aiinfra_widgets.errors import StorageError
from aiinfra_widgets.reports import run
from aiinfra_widgets.reports.run import report

pytestmark = pytest.mark.faults

SAVE = "from aiinfra_widgets.reports.results import save\nimport os\nsave({'pid': os.getpid()})"


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_kernel_leaves_no_cell_marked_that_did_not_run(write, tmp_path):
    lab = write(SAVE, "print('last words', flush=True)\nimport time; time.sleep(.3)\nos.kill(os.getpid(), 9)", "1", "2")
    ended = []
    result = report(lab, {}, tmp_path / "out", on_end=ended.append)
    assert [c["status"] for c in result.data["cells"]] == ["executed", "executed", "failed", "not run", "not run"]
    assert result.data["error"]["name"] == "DeadKernelError"
    assert "ended by SIGKILL" in result.data["error"]["message"]
    assert result.data["error"]["cell"] == 3
    assert ended == [result.data["results"]["pid"]]
    assert gone(ended[0])
    saved = nbformat.read(result.notebook, as_version=4)
    nbformat.validate(saved)
    codes = [c for c in saved.cells if c.cell_type == "code"]
    assert [c.metadata.papermill.status for c in codes] == ["completed", "completed", "failed", "pending", "pending"]
    assert [o.output_type for o in codes[2].outputs] == ["stream", "error"]
    page = result.html.read_text()
    assert "last words" in page
    assert "ended by SIGKILL" in page


def test_a_kernel_that_exits_says_its_code(write, tmp_path):
    result = report(write("import os\nos._exit(3)", "1"), {}, tmp_path / "out")
    assert "exit code 3" in result.error
    assert [c["status"] for c in result.data["cells"]] == ["executed", "failed", "not run"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_hanging_cell_ends_with_its_kernel(write, tmp_path, stubborn):
    ignore = "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\n" if stubborn else ""
    started = time.monotonic()
    result = report(write(SAVE, ignore + "while True: pass", "1"), {}, tmp_path / "out", timeout_s=2)
    assert time.monotonic() - started < 60
    assert result.error == "cell 3: CellTimeoutError: the cell took longer than 2 s; the kernel was killed"
    assert [c["status"] for c in result.data["cells"]] == ["executed", "executed", "failed", "not run"]
    assert gone(result.data["results"]["pid"])


def in_a_process(lab: Path, out: Path) -> subprocess.Popen[str]:
    code = (
        "import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in a shell's background
        "from pathlib import Path; from aiinfra_widgets.reports.run import report; "
        f"r = report(Path({str(lab)!r}), {{}}, Path({str(out)!r})); sys.exit(0 if r.ok else 2)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_a_stopped_report_is_saved_and_its_kernel_ended(write, tmp_path, number, name):
    lab = write(SAVE, f"open({str(tmp_path / 'here')!r}, 'w').close()\nimport time; time.sleep(300)", "1")
    process = in_a_process(lab, tmp_path / "out")
    wait_for((tmp_path / "here").exists)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in {143, 130, -signal.SIGINT, 1}
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (data["status"], data["error"]["name"], data["error"]["cell"]) == ("failed", name, 3)
    assert [c["status"] for c in data["cells"]] == ["executed", "executed", "failed", "not run"]
    assert gone(data["results"]["pid"])
    nbformat.validate(nbformat.read(tmp_path / "out" / "lab.ipynb", as_version=4))
    assert (tmp_path / "out" / "lab.html").exists()


def test_a_killed_report_takes_its_kernel_along_and_leaves_what_was_run(write, tmp_path):
    here = tmp_path / "here"
    lab = write(f"import os\nopen({str(here)!r}, 'w').write(str(os.getpid()))", "import time; time.sleep(300)")
    process = in_a_process(lab, tmp_path / "out")
    wait_for(lambda: here.exists() and here.read_text())
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: gone(int(here.read_text())), 10)
    left = nbformat.read(tmp_path / "out" / ".lab.part.ipynb", as_version=4)
    assert left.cells[1].execution_count == 2
    assert not (tmp_path / "out" / "results.json").exists()
    assert report(lab, {}, tmp_path / "out", timeout_s=1).status == "failed"  # the folder can be used again


def test_a_kernel_that_does_not_start_is_an_answer_too(write, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    result = report(write("1"), {}, tmp_path / "out", start_timeout_s=5)
    assert result.status == "failed"
    assert [c["status"] for c in result.data["cells"]] == ["not run", "not run"]
    assert result.data["error"]["cell"] is None
    assert result.data["error"]["message"]
    assert result.html.exists()


def test_a_full_disk_is_a_storage_error_and_no_kernel_stays(write, tmp_path, monkeypatch):
    def full(path, data):
        raise StorageError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(run.handed, "write_json", full)
    ended = []
    with pytest.raises(StorageError, match="No space left"):
        report(write("1"), {}, tmp_path / "out", on_end=ended.append)
    assert gone(ended[0])
    assert not (tmp_path / "out" / "lab.html").exists()


def test_a_disk_that_fills_while_the_notebook_runs_ends_it(write, tmp_path, monkeypatch):
    real, calls = engines.write_ipynb, []

    def filling(nb, path):
        calls.append(path)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(nb, path)

    monkeypatch.setattr(engines, "write_ipynb", filling)
    ended = []
    result = report(write("1", "2", "3"), {}, tmp_path / "out", on_end=ended.append)
    assert result.status == "failed"
    assert "No space left" in result.error
    assert "not run" in [c["status"] for c in result.data["cells"]]
    assert gone(ended[0])


def test_a_batch_goes_on_after_failures(write, tmp_path):
    kinds = {"fine": "1", "error": "1 / 0", "killed": "import os; os.kill(os.getpid(), 9)"}
    ended = [report(write(code, name=f"{name}.ipynb"), {}, tmp_path / name).status for name, code in kinds.items()]
    assert ended == ["done", "failed", "failed"]
    assert os.listdir(tmp_path / "killed")
