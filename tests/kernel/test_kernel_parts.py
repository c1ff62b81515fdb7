"""What the kernel is made of, without ranks: its number of ranks, its signed messages, its lines."""

from __future__ import annotations

import json
from multiprocessing import Pipe
from pathlib import Path

import pytest
from aiinfra_widgets.kernels.mpi.__main__ import rank_count
from aiinfra_widgets.kernels.mpi.wire import Lines, Wire

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.launch import local


@pytest.mark.parametrize(
    ("env", "metadata", "want"),
    [
        pytest.param(None, None, 2, id="default"),
        pytest.param(None, {}, 2, id="no-metadata"),
        pytest.param(None, {"aiinfra_np": 4}, 4, id="metadata"),
        pytest.param("3", {"aiinfra_np": 4}, 3, id="environment-first"),
    ],
)
def test_rank_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: str | None, metadata: dict[str, int] | None, want: int
) -> None:
    (tmp_path / "kernel.json").write_text(json.dumps({"metadata": metadata or {}}))
    monkeypatch.delenv("AIINFRA_NP", raising=False)
    if env:
        monkeypatch.setenv("AIINFRA_NP", env)
    assert rank_count(None if metadata is None else tmp_path) == want


@pytest.mark.parametrize("given", ["0", "-1", "two", "2.5"])
def test_a_wrong_rank_count_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("AIINFRA_NP", given)
    with pytest.raises(SpecError, match="AIINFRA_NP"):
        rank_count(None)


def test_a_message_arrives_and_one_with_another_key_does_not() -> None:
    a, b = Pipe()
    Wire(a, b"k" * 32).send("run", code="print('ü')")
    assert Wire(b, b"k" * 32).receive() == {"kind": "run", "code": "print('ü')"}
    Wire(a, b"x" * 32).send("run", code="evil")
    with pytest.raises(ConnectionError, match="not signed"):
        Wire(b, b"k" * 32).receive()
    a.close()
    with pytest.raises(EOFError):
        Wire(b, b"k" * 32).receive()


def test_lines_are_whole() -> None:
    shown: list[str] = []
    lines = Lines(shown.append, None)
    assert lines.write("a") == 1
    assert shown == []
    lines.write("b\nc\n\nd")
    assert shown == ["ab\nc\n\n"]
    lines.write(" 50%\r")
    assert shown[1:] == ["d 50%\r"]
    lines.write("end")
    lines.finish()
    lines.finish()
    assert shown[2:] == ["end\n"]


def test_the_kernelspec_interrupts_by_message_and_starts_our_module(repo: Path) -> None:
    """By signal, Jupyter would send SIGINT to mpiexec, which ends every rank."""
    spec = json.loads((repo / "kernels" / "mpi" / "spec" / "kernel.json").read_text())
    assert spec["interrupt_mode"] == "message"
    assert spec["argv"][:3] == ["python", "-m", "aiinfra_widgets.kernels.mpi"]


def test_the_launcher_starts_another_module_when_asked() -> None:
    argv = local.command(2, ["x"], Path("mpiexec"), module="some.module")
    assert argv[-3:] == ["-m", "some.module", "x"]
