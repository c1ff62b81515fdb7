"""Lets a node die at one place of the code, to the line: real ranks get this module as their sitecustomize, and one kills itself."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

MIRROR, MEMBERSHIP = "aiinfra_widgets.parallel.mirror", "aiinfra_widgets.ranks.membership"
#: Where a node may die, and the module of it: before the first copy of a changed plan is begun or in the middle of it; when the
#: living are about to leave the dead behind, before the idle are told or after it.
PLACES = {"before": MIRROR, "middle": MIRROR, "untold": MEMBERSHIP, "told": MEMBERSHIP}
#: "NODE PLACE"
VARIABLE = "AIINFRA_TEST_DIES"


def arm(folder: Path, monkeypatch: Any, node: int, place: str) -> None:
    """From now on, in processes that are started: `node` dies when it comes to `place`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(Path(__file__).read_text() + "\n\nlisten()\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv(VARIABLE, f"{node} {place}")


def listen() -> None:
    """In the rank: wait until the module is imported."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        node, place = os.environ[VARIABLE].split()
        if name != PLACES[place]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            if name == MIRROR:
                _plant_in_copies(module.Ring, int(node), place)
            else:
                _plant_in_regrouping(module.Membership, int(node), place)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _die_if(node: int) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == node:
        os.kill(os.getpid(), signal.SIGKILL)


def _plant_in_copies(ring: Any, node: int, place: str) -> None:
    made, copied = ring.__init__, ring._copy

    def init(self: Any, *given: Any, step: int, **more: Any) -> None:
        self.dies = step > 0  # not at the start of the run
        if self.dies and place == "before":
            _die_if(node)
        made(self, *given, step=step, **more)
        self.dies = False

    def copy(self: Any, mine: Any) -> None:
        copied(self, mine)
        if self.dies and place == "middle":
            _die_if(node)

    ring.__init__, ring._copy = init, copy


def _plant_in_regrouping(membership: Any, node: int, place: str) -> None:
    tell = membership._tell_idle

    def tell_idle(self: Any, dead: list[int]) -> None:
        if place == "untold":
            _die_if(node)
        tell(self, dead)
        _die_if(node)

    membership._tell_idle = tell_idle
