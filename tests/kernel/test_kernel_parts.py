"""What the kernel is made of, without ranks: its number of ranks, its signed messages, its lines."""

from __future__ import annotations

import json
from multiprocessing import Pipe
from pathlib import Path

import pytest
from aiinfra_widgets.kernels.mpi.__main__ import rank_count
from aiinfra_widgets.kernels.mpi.fold import Fold
from aiinfra_widgets.kernels.mpi.ranks import chosen, read, shown
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


def test_equal_lines_are_folded_in_order() -> None:
    said: list[tuple[str, str]] = []
    fold = Fold(lambda name, text: said.append((name, text)))
    for rank in (2, 0, 1):
        fold.add(rank, "stdout", f"begin\nmine {rank}\n")
    fold.add(1, "stderr", "odd\n")
    fold.flush()
    lines = ["[ranks 0-2] begin\n", "[rank 0] mine 0\n", "[rank 1] mine 1\n", "[rank 2] mine 2\n"]
    assert said == [("stdout", "".join(lines)), ("stderr", "[rank 1] odd\n")]
    fold.flush()
    assert len(said) == 2


@pytest.mark.parametrize(
    ("text", "want"),
    [("1", (1,)), ("0,2", (0, 2)), ("1-3", (1, 2, 3)), ("!0", (1, 2, 3)), ("0-3,!2", (0, 1, 3)), ("all", (0, 1, 2, 3))],
)
def test_ranks_are_named(text: str, want: tuple[int, ...]) -> None:
    assert chosen(text, range(4)) == want
    assert read(f"%%rank {text}\ncode", range(4)).ranks == want


@pytest.mark.parametrize(
    "cell", ["%%rank 9\nx", "%%rank\nx", "%%rank a\nx", "%%rank !all\nx", "%ranks two", "%ranks 0", "%ranks 2\nx"]
)
def test_what_names_no_rank_is_refused(cell: str) -> None:
    with pytest.raises(SpecError, match=r"%%?ranks?"):
        read(cell, range(4))


def test_ranks_are_shown_as_a_person_writes_them() -> None:
    assert shown([5, 0, 1, 2, 7, 8]) == "0-2, 5, 7, 8"
