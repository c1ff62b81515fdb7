"""The kernel Python (MPI), driven as Jupyter drives it: through jupyter_client, nbclient and papermill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from aiinfra_widgets.kernels.mpi.ranks import chosen
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]
NAME = "aiinfra-mpi"
ANSWER_S = 60


@dataclass
class Cell:
    """What a cell left behind."""

    status: str = ""
    text: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def lines(self) -> set[str]:
        """Every line once for each rank that printed it: whether equal ones were folded depends on how far apart they came."""
        return {f"[rank {r}] {line.partition('] ')[2]}" for line in self.text.splitlines() for r in of(line, range(9))}

    def said(self, rank: int, text: str) -> bool:
        """Whether a rank printed a line."""
        return f"[rank {rank}] {text}" in self.lines


class Kernel:
    """A kernel and one client of it."""

    def __init__(self, kernels: Path, **env: str) -> None:
        self.manager = KernelManager(
            kernel_name=NAME, kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
        )
        self.manager.start_kernel(env={**os.environ, **env})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=ANSWER_S)

    def processes(self) -> list[psutil.Process]:
        """The keeper, mpiexec and the ranks."""
        keeper = psutil.Process(self.manager.provisioner.pid)
        return [keeper, *keeper.children(recursive=True)]

    def run(self, code: str, meanwhile: Callable[[Cell], bool] | None = None) -> Cell:
        """Run a cell; `meanwhile` is called after each message, until it returns True."""
        cell, sent = Cell(), self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=ANSWER_S)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            if kind == "stream":
                cell.text += content["text"]
            elif kind == "error":
                cell.errors.append(content)
            elif kind in {"execute_result", "display_data"}:
                cell.results.append(content["data"]["text/plain"])
            elif kind == "update_display_data":
                cell.changed.append(content["data"]["text/plain"])
            elif kind == "status" and content["execution_state"] == "idle":
                break
            if meanwhile and meanwhile(cell):
                meanwhile = None
        while (reply := self.client.get_shell_msg(timeout=ANSWER_S))["parent_header"].get("msg_id") != sent:
            pass
        cell.status = reply["content"]["status"]
        return cell

    def interrupt_when(self, *ranks: int) -> Callable[[Cell], bool]:
        """Interrupt as soon as these ranks printed `on`."""

        def look(cell: Cell) -> bool:
            if not all(cell.said(rank, "on") for rank in ranks):
                return False
            self.manager.interrupt_kernel()
            return True

        return look

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def of(line: str, alive: Sequence[int]) -> tuple[int, ...]:
    """The ranks before a line: `[ranks 0-2, 5] text`."""
    names = re.match(r"\[ranks? ([\d, -]+)\] ", line)
    return chosen(names[1].replace(" ", ""), alive) if names else ()


def gone(processes: list[psutil.Process], within_s: float = 15.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def kernels(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of kernelspecs with ours, as an installation makes it."""
    folder = tmp_path_factory.mktemp("share") / "kernels"
    shutil.copytree(repo / "kernels" / "mpi" / "spec", folder / NAME)
    return folder


@pytest.fixture(scope="module")
def kernel(kernels: Path) -> Iterator[Kernel]:
    made = Kernel(kernels)
    yield made
    ranks = made.processes()
    made.close()
    assert gone(ranks), "a rank outlived the shutdown of its kernel"


SUM = "import numpy as np\ntotal = np.zeros(1)\ncomm.Allreduce(np.full(1, rank + 1.0), total)\nprint(total[0], size)"


def test_a_cell_runs_on_every_rank_and_its_lines_say_which(kernel: Kernel) -> None:
    cell = kernel.run(SUM)
    assert cell.status == "ok"
    assert cell.lines == {"[rank 0] 3.0 2", "[rank 1] 3.0 2"}
    assert kernel.run("comm.allreduce(rank)").results == ["1"]


def test_state_and_results_live_on_every_rank(kernel: Kernel) -> None:
    kernel.run("mine = rank * 10\nmine + 1")
    assert kernel.run("print(mine, _)").lines == {"[rank 0] 0 1", "[rank 1] 10 11"}


def test_a_line_without_an_end_and_what_is_displayed_come_too(kernel: Kernel) -> None:
    cell = kernel.run("from IPython.display import display\ndisplay({'rank': rank})\nprint('tail', end='')")
    assert "[rank 1] shows:" in cell.lines
    assert {"[rank 0] tail", "[rank 1] tail"} <= cell.lines
    assert sorted(cell.results) == ["{'rank': 0}", "{'rank': 1}"]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_names_its_rank_and_leaves_the_kernel_usable(kernel: Kernel, failing: int) -> None:
    cell = kernel.run(f"if rank == {failing}:\n    raise ValueError('no luck')\nprint('fine')")
    (error,) = cell.errors
    assert (cell.status, error["ename"]) == ("error", "ValueError")
    assert error["evalue"] == f"[rank {failing}] no luck"
    assert f"[rank {failing}]" in error["traceback"][0]
    assert "raise" in "".join(error["traceback"])
    assert cell.lines == {f"[rank {1 - failing}] fine"}
    assert kernel.run(SUM).status == "ok"


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param("import time\ntime.sleep(600)", id="sleep"),
        pytest.param("while True:\n    comm.allreduce(1)", id="loop-of-collectives"),
        pytest.param("while True:\n    comm.Allreduce(np.ones(10**5), np.ones(10**5))", id="large-messages"),
        pytest.param("while True:\n    print('x' * 100)", id="flood-of-prints"),
        pytest.param("if rank == 1:\n    comm.Barrier()\nelse:\n    comm.recv(source=1)", id="deadlock-in-mpi"),
    ],
)
def test_an_interrupt_reaches_every_rank(kernel: Kernel, wait: str) -> None:
    before = kernel.processes()
    cell = kernel.run(f"import numpy as np\nprint('on')\n{wait}", kernel.interrupt_when(0, 1))
    assert cell.status == "error"
    assert "RankBusy" not in str(cell.errors)
    assert kernel.run(SUM).lines == {"[rank 0] 3.0 2", "[rank 1] 3.0 2"}
    assert kernel.processes() == before, "an interrupt must not replace a process"


def test_a_rank_that_fails_before_the_others_call_is_shown_at_once(kernel: Kernel) -> None:
    """The usual mistake: rank 0 waits for ever, and nothing but an interrupt or a restart helps."""

    def interrupt(cell: Cell) -> bool:
        if not cell.errors:
            return False
        kernel.manager.interrupt_kernel()
        return True

    cell = kernel.run("if rank == 1:\n    raise ValueError('early')\ncomm.Barrier()", interrupt)
    assert cell.errors[0]["evalue"] == "[rank 1] early"
    assert kernel.run(SUM).status == "ok"


def test_a_rank_in_its_own_communicator_is_named_and_a_restart_helps(kernel: Kernel) -> None:
    lock = "own = comm.Dup()\nprint('on')\nif rank == 1:\n    own.Barrier()"
    cell = kernel.run(lock, kernel.interrupt_when(1))
    assert cell.errors[-1]["ename"] == "RankBusy"
    assert cell.errors[-1]["evalue"].startswith("[rank 1]")
    assert kernel.run("print('no')").status == "error"
    ranks = kernel.processes()
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=ANSWER_S)
    assert gone(ranks), "a rank outlived the restart"
    assert kernel.run("own").errors[0]["ename"] == "NameError"
    assert kernel.run(SUM).status == "ok"


def test_a_killed_rank_is_reported_and_the_others_go_on(kernels: Path) -> None:
    kernel = Kernel(kernels, AIINFRA_NP="3")
    cell = kernel.run("import os, signal\nif rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)")
    assert [e["ename"] for e in cell.errors] == ["RankLost"]
    assert kernel.run("print(comm.allgather(os.getpid()) == [os.getpid()], size)").lines == {
        "[rank 0] False 2",
        "[rank 2] False 2",
    }
    kernel.run("print('on')\nwhile True:\n    comm.allreduce(1)", kernel.interrupt_when(0, 2))
    assert kernel.run("print(comm.allreduce(1))").lines == {"[rank 0] 2", "[rank 2] 2"}
    ranks = kernel.processes()
    kernel.close()
    assert gone(ranks)


def test_it_listens_on_loopback_only_and_takes_nobody_else_in(kernel: Kernel) -> None:
    _, _, *ranks = kernel.processes()
    listening = [c.laddr for p in ranks for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    connection = json.loads(Path(kernel.manager.connection_file).read_text())
    jupyter = {v for k, v in connection.items() if k.endswith("_port")}
    assert {a.ip for a in listening} == {"127.0.0.1"}
    pairs = [c for p in ranks for c in p.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED]
    assert all(c.raddr.ip == "127.0.0.1" for c in pairs)
    assert jupyter <= {a.port for a in listening}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_its_jupyter(kernels: Path, end: signal.Signals) -> None:
    """The process that started the kernel dies without a word, in the middle of a cell."""
    code = (
        "import sys, time\nfrom jupyter_client.kernelspec import KernelSpecManager as S\n"
        "from jupyter_client.manager import KernelManager as K\n"
        f"k = K(kernel_name={NAME!r}, kernel_spec_manager=S(kernel_dirs=[sys.argv[1]])); k.start_kernel()\n"
        "c = k.client(); c.start_channels(); c.wait_for_ready(timeout=60); c.execute('while True: pass')\n"
        "print(k.provisioner.pid, flush=True); time.sleep(600)"
    )
    jupyter = subprocess.Popen([sys.executable, "-c", code, str(kernels)], stdout=subprocess.PIPE, text=True)
    assert jupyter.stdout
    mpiexec = psutil.Process(int(jupyter.stdout.readline()))
    ranks = [mpiexec, *mpiexec.children(recursive=True)]
    jupyter.send_signal(end)
    jupyter.wait()
    assert gone(ranks)


def test_no_rank_outlives_a_killed_mpiexec(kernels: Path) -> None:
    kernel = Kernel(kernels)
    ranks = kernel.processes()
    kernel.manager.provisioner.process.kill()
    assert gone(ranks)
    kernel.close()


@pytest.mark.parametrize("runner", ["nbclient", "papermill"])
def test_it_runs_notebooks_unattended(kernels: Path, tmp_path: Path, runner: str) -> None:
    cells = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(SUM)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
    argv = {
        "nbclient": ["jupyter", "execute", "in.ipynb", "--output=out.ipynb", f"--kernel_name={NAME}"],
        "papermill": ["papermill", "in.ipynb", "out.ipynb", "-k", NAME, "-p", "n", "2", "--no-progress-bar"],
    }[runner]
    env = {**os.environ, "JUPYTER_PATH": str(kernels.parent), "AIINFRA_NP": "3"}
    argv[0] = str(Path(sys.executable).with_name(argv[0]))
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    text = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    assert Cell(text=text).lines == {"[rank 0] 6.0 3", "[rank 1] 6.0 3", "[rank 2] 6.0 3"}


def test_a_cell_on_some_ranks(kernel: Kernel) -> None:
    assert kernel.run("%%rank 1\nonly = rank\nprint('here')").lines == {"[rank 1] here"}
    assert kernel.run("print('only' in globals())").lines == {"[rank 0] False", "[rank 1] True"}
    assert kernel.run("%%rank !1\n1 + rank").results == ["1"]
    refused = kernel.run("%%rank 7\nprint('no')")
    assert refused.errors[0]["ename"] == "RankError"
    assert "there is no rank 7; there are 0, 1" in refused.errors[0]["evalue"]
    assert refused.text == ""


def test_completion_and_pictures_are_of_rank_0(kernel: Kernel) -> None:
    kernel.run("a_long_name = rank")
    sent = kernel.client.complete("a_long_n")
    while (reply := kernel.client.get_shell_msg(timeout=ANSWER_S))["parent_header"].get("msg_id") != sent:
        pass
    assert "a_long_name" in reply["content"]["matches"]
    picture = "from IPython.display import display, SVG\nif rank == 0:\n    display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))"
    assert len(kernel.run(picture).results) == 1


def test_a_long_cell_says_for_whom_it_waits(kernel: Kernel) -> None:
    code = "import time\nif rank == 1:\n    time.sleep(7)"
    cell = kernel.run(code)
    assert any("done: 0; still at work: 1" in text for text in cell.changed + cell.results)
    assert cell.changed[-1].startswith("2 ranks: done after")


def test_another_number_of_ranks_behind_the_same_connection(kernels: Path) -> None:
    kernel = Kernel(kernels)
    before = kernel.processes()
    assert kernel.run("%ranks").text.startswith("[rank 0] 2 ranks: 0, 1")
    too_many = kernel.run("%ranks 100000")
    assert too_many.errors[0]["ename"] == "RankError"
    cell = kernel.run("%ranks 3")
    assert cell.status == "ok"
    assert cell.text.splitlines()[-1] == "3 ranks now"
    assert gone(before[1:]), "a rank of the old number is left"
    assert kernel.run(SUM).lines == {"[rank 0] 6.0 3", "[rank 1] 6.0 3", "[rank 2] 6.0 3"}
    ranks = kernel.processes()
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=ANSWER_S)
    assert kernel.run(SUM).lines == {"[rank 0] 6.0 3", "[rank 1] 6.0 3", "[rank 2] 6.0 3"}, "a restart keeps the number"
    ranks += kernel.processes()
    kernel.close()
    assert gone(ranks)


def test_another_launcher_takes_the_place_of_mpiexec(kernels: Path, tmp_path: Path) -> None:
    """A command that is not ours starts the ranks: here a script around mpiexec, on a cluster `srun -K1 --mpi=pmix -n {n}`."""
    flags = "--with-ft ulfm --bind-to none --map-by :OVERSUBSCRIBE --mca pml ob1 --mca btl self,sm"
    script = tmp_path / "srun"
    root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    mpiexec = Path(sys.executable).with_name("mpiexec")
    script.write_text(f'#!/bin/sh\n{root}\necho "$@" > {tmp_path}/asked\nshift\nexec {mpiexec} {flags} "$@"\n')
    script.chmod(0o755)
    kernel = Kernel(kernels, AIINFRA_KERNEL_LAUNCHER=f"{script} -K1 -n {{n}}", AIINFRA_NP="2")
    assert kernel.run(SUM).lines == {"[rank 0] 3.0 2", "[rank 1] 3.0 2"}
    assert (tmp_path / "asked").read_text().startswith("-K1 -n 2 ")
    ranks = kernel.processes()
    kernel.close()
    assert gone(ranks)


def test_papermill_interrupts_a_cell_and_the_ranks_are_restarted(kernels: Path, tmp_path: Path) -> None:
    """Its time limit interrupts the cell on every rank; `%ranks` starts new ones behind papermill's back."""
    limit = nbformat.v4.new_code_cell("import time\ntime.sleep(600)", metadata={"tags": ["raises-exception"]})
    codes = ["x = rank", "print('x' in globals(), comm.allreduce(rank))", "%ranks 2", "print('x' in globals(), size)"]
    first, *others = [nbformat.v4.new_code_cell(c) for c in codes]
    metadata = {"kernelspec": {"name": NAME, "display_name": "MPI", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[first, limit, *others], metadata=metadata)
    known = [c.id for c in notebook.cells]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    asked = "execution_timeout=20, interrupt_on_timeout=True, progress_bar=False"
    code = f"import papermill; papermill.execute_notebook('in.ipynb', 'out.ipynb', {asked})"
    env = {**os.environ, "JUPYTER_PATH": str(kernels.parent), "AIINFRA_NP": "2"}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "KeyboardInterrupt" in done.stderr  # at the very end
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    outputs = [c.outputs for c in cells if c.cell_type == "code" and c.id in known]
    assert {o["ename"] for o in outputs[1] if o["output_type"] == "error"} == {"KeyboardInterrupt"}
    lines = [Cell(text="".join(o.get("text", "") for o in found)).lines for found in (outputs[2], outputs[4])]
    assert lines[0] == {"[rank 0] True 1", "[rank 1] True 1"}
    assert lines[1] == {"[rank 0] False 2", "[rank 1] False 2"}


@pytest.mark.parametrize("case", ["one-rank-fails", "dead-rank", "other-number"])
def test_papermill_says_which_rank(kernels: Path, tmp_path: Path, case: str) -> None:
    code = {
        "one-rank-fails": ["if rank == 1:\n    raise ValueError('no luck')"],
        "dead-rank": ["import os, signal\nif rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)"],
        "other-number": ["%ranks 3", SUM],
    }[case]
    cells = [nbformat.v4.new_code_cell(c) for c in code]
    metadata = {"kernelspec": {"name": NAME, "display_name": "MPI", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
    env = {**os.environ, "JUPYTER_PATH": str(kernels.parent)}
    argv = [str(Path(sys.executable).with_name("papermill")), "in.ipynb", "out.ipynb", "--no-progress-bar"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    last = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    if case == "other-number":
        assert done.returncode == 0, done.stderr
        text = "".join(o["text"] for o in last if o["output_type"] == "stream")
        assert Cell(text=text).lines == {f"[rank {r}] 6.0 3" for r in range(3)}
    else:
        assert done.returncode == 1
        [error] = [o for o in last if o["output_type"] == "error"]
        assert error["evalue"].startswith("[rank 1] ")
        assert error["ename"] == {"one-rank-fails": "ValueError", "dead-rank": "RankLost"}[case]
