"""Lets a node die at one place of the code, to the line: real ranks get this module as their sitecustomize, and one kills itself."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

MODULE = "aiinfra_widgets.parallel.mirror"
#: "NODE PLACE": who dies, and whether before the first copy of a changed plan is begun, or in the middle of it.
VARIABLE = "AIINFRA_TEST_DIES"
PLACES = ("before", "middle")


def arm(folder: Path, monkeypatch: Any, node: int, place: str) -> None:
    """From now on, in processes that are started: `node` dies at `place` when a plan is changed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(Path(__file__).read_text() + "\n\nlisten()\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv(VARIABLE, f"{node} {place}")


def listen() -> None:
    """In the rank: wait until the module is imported."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _plant(module.Ring)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _plant(ring: Any) -> None:
    node, place = os.environ[VARIABLE].split()
    made, copied = ring.__init__, ring._copy

    def die(self: Any) -> None:
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == int(node):
            os.kill(os.getpid(), signal.SIGKILL)

    def init(self: Any, *given: Any, step: int, **more: Any) -> None:
        self.dies = step > 0  # not at the start of the run
        if self.dies and place == "before":
            die(self)
        made(self, *given, step=step, **more)
        self.dies = False

    def copy(self: Any, mine: Any) -> None:
        copied(self, mine)
        if self.dies and place == "middle":
            die(self)

    ring.__init__, ring._copy = init, copy
