"""Faults as experiments: the controller takes the request, and the node that is meant does it to itself, at the same boundary.

So it works on any host, and nobody needs the right to signal a process that is not his. What lasts is ended by the plan of a later
boundary where all nodes must know of it (a link), and by a helper process where the node itself cannot (it is stopped, or dead).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..errors import ControlError, LabError, near
from ..experiment import Spec
from ..faults import KINDS, Fault
from .node import Node, Program

#: What a disk that the system lives on keeps free, and the share of memory that a disk in memory may take.
KEEP_FREE_BYTES, MEMORY_SHARE = 2**30, 0.25
#: What a filled disk keeps for the entry that says so, and how often it is tried against others who write to it.
OWN_WORDS_BYTES, TRIES = 2 * 4096, 20
#: Folders whose disk the machine needs to go on.
VITAL = ("/", tempfile.gettempdir(), "/var", "/home", "/usr")
#: A slowed node sleeps at most this long in one tick, so that it still answers.
MOST_SLEEP_S = 2.0
#: Kinds that every node must know of, because they choose the collectives.
OF_LINKS = ("link", "cut")


@dataclass(slots=True)
class Lasting:
    """A fault that goes on: the request, what it is, and until when by this node's clock."""

    request: str
    fault: Fault
    until_s: float


class Chaos:
    """The faults of one node in one run.

    Args:
        node: What they happen to.
        program: Whose parameters are poisoned.
        pool: Folder with the state of the launcher.
    """

    def __init__(self, node: Node, program: Program, pool: Path) -> None:
        self.node, self.program, self.pool = node, program, pool
        self.lasting: list[Lasting] = []
        self._slow_share = 0.0

    # --- on the controller --------------------------------------------------------------------------------------
    def accept(self, spec: Spec, given: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
        """Return the checked arguments of a fault, its node named.

        Args:
            spec: As it is now.
            given: Arguments of the verb.
            members: Nodes at work.

        Raises:
            ControlError: What cannot be done here, and what can.
        """
        found = Fault.make(given)
        node = members[-1] if found.node < 0 else found.node
        if node not in members:
            raise ControlError(
                f"node: got {node}; {near(str(node), [str(m) for m in members])}: only these are at work"
            )
        if found.kind in OF_LINKS and not hasattr(spec, "link_latency_s"):
            raise ControlError(
                f"kind: got {found.kind!r}, but the messages of this experiment cannot be delayed; try slow or stop"
            )
        if found.kind in OF_LINKS and len(members) == 1:
            raise ControlError(f"kind: got {found.kind!r}, but one node has no link; set nodes=2 first")
        if found.kind == "nan" and type(self.program).poison is Program.poison:
            raise ControlError("kind: got 'nan', but this experiment has no parameters to poison; try kill or slow")
        return {**found.model_dump(), "node": node}

    def over(self, now: float) -> list[str]:
        """Return the requests whose time is up."""
        return [each.request for each in self.lasting if each.until_s <= now]

    # --- on every node at work ----------------------------------------------------------------------------------
    def calm(self, requests: Sequence[str]) -> bool:
        """End these faults; return whether links are whole again, so that the programme must join anew."""
        ended = [each for each in self.lasting if each.request in requests]
        self.lasting = [each for each in self.lasting if each.request not in requests]
        for each in ended:
            if each.fault.node == self.node.id:
                self._say("fault-over", each.request, each.fault)
        self._set()
        return any(each.fault.kind in OF_LINKS for each in ended)

    def strike(self, request: str, arguments: Mapping[str, Any]) -> bool:
        """Carry out one fault, or take note of it where it happens to another node.

        Returns:
            Whether links are affected, so that the programme must join anew.
        """
        fault = Fault.make(arguments)
        kind, mine = fault.kind, fault.node == self.node.id
        if kind in ("slow", "disk", *OF_LINKS):
            self.lasting.append(Lasting(request, fault, time.monotonic() + fault.seconds))
            self._set()
        if kind == "nan":
            self.program.poison(here=mine)
        if not mine:
            return kind in OF_LINKS
        try:
            about = self._prepare(fault)
        except (LabError, OSError, psutil.Error) as error:
            self._say("fault-failed", request, fault, message=str(error))
            return False
        self._say("fault", request, fault, **{k: v for k, v in about.items() if k != "pids"})
        for pid in about.get("pids", ()):
            os.kill(pid, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
        if kind == "stop":  # somebody woke it: the helper, or a person
            self._say("fault-over", request, fault)
        return kind in OF_LINKS

    def going(self) -> list[tuple[str, dict[str, Any], float]]:
        """Return what goes on, for a node that joins: request, arguments, seconds left."""
        now = time.monotonic()
        return [(each.request, each.fault.model_dump(), each.until_s - now) for each in self.lasting]

    def adopt(self, going: Sequence[tuple[str, Mapping[str, Any], float]]) -> None:
        """Take over what goes on among the nodes that this one joins."""
        now = time.monotonic()
        self.lasting = [Lasting(request, Fault.make(given), now + left_s) for request, given, left_s in going]
        self._set()

    def links_whole(self) -> None:
        """End the faults of links: a node died, and the others may not agree on which of them went on."""
        self.calm([each.request for each in self.lasting if each.fault.kind in OF_LINKS])

    def drag(self, busy_s: float) -> float:
        """Sleep as a slowed node does after a tick that took `busy_s`; return the seconds slept."""
        if not self._slow_share:
            return 0.0
        begun_s = time.perf_counter()
        time.sleep(min(busy_s * self._slow_share / (1 - self._slow_share), MOST_SLEEP_S))
        return time.perf_counter() - begun_s

    # --- inside -------------------------------------------------------------------------------------------------
    def _set(self) -> None:
        """Bring link and share in line with what goes on now."""
        links = [e for e in self.lasting if e.fault.kind in OF_LINKS]
        mine = [e for e in self.lasting if e.fault.node == self.node.id]
        link = self.node.link
        link.written_out = bool(links)
        link.fault_latency_s = sum(e.fault.latency_s for e in mine if e.fault.kind == "link")
        link.cut_until_s = max((e.until_s for e in mine if e.fault.kind == "cut"), default=0.0)
        self._slow_share = max((e.fault.share for e in mine if e.fault.kind == "slow"), default=0.0)

    def _prepare(self, fault: Fault) -> dict[str, Any]:
        """Do what can be done before it is said; return what to record, and in `pids` who gets the signal after that."""
        match fault.kind:
            case "kill":
                return {"pids": [os.getpid()], "pid": os.getpid()}
            case "stop":
                _helper("wake", str(os.getpid()), fault.seconds)
                return {"pids": [os.getpid()], "pid": os.getpid()}
            case "disk":
                path = self.node.folder / f".fault-{self.node.id}"
                taken = take(path, fault.size_bytes)
                _helper("remove", str(path), fault.seconds)
                return {"taken_bytes": taken, "free_bytes": shutil.disk_usage(path.parent).free}
            case "launcher" | "supervisor" | "host":
                pid = self._guardian(fault.kind)
                return {"pids": [pid], "pid": pid}
        return {}

    def _guardian(self, kind: str) -> int:
        """Return the process of mpiexec, of the supervisor, or of the launcher's part on this host.

        Raises:
            ControlError: It is not above this node: the number is another process's by now, or it is on another host.
        """
        me = psutil.Process()
        if kind == "host":
            return int(me.ppid())
        name, key = ("state.json", "mpiexec_pid") if kind == "launcher" else ("supervisor.json", "pid")
        pid = json.loads((self.pool / name).read_text()).get(key)
        if pid not in {p.pid for p in me.parents()}:
            raise ControlError(
                f"the {kind} (process {pid}) does not run on the host of node {self.node.id}; name a node of that host"
            )
        return int(pid)

    def _say(self, kind: str, request: str, fault: Fault, **more: Any) -> None:
        used = {name: getattr(fault, name) for name in KINDS[fault.kind].uses}
        self.node.event(
            kind, request=request, fault=fault.kind, node=fault.node, tick=self.program.tick, **used, **more
        )


def take(path: Path, wanted_bytes: int, tries: int = TRIES) -> int:
    """Fill a disk by a file, all but what the entry of the fault needs; return the bytes taken.

    Raises:
        OSError: There was less room each time than a moment before, because others write as well.
    """
    taken = max(room(path.parent, wanted_bytes + OWN_WORDS_BYTES) - OWN_WORDS_BYTES, 0)
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken) if taken else None
    except OSError as error:
        if error.errno == errno.ENOSPC and tries > 1:
            return take(path, wanted_bytes, tries - 1)
        raise
    return taken


def room(folder: Path, wanted_bytes: int) -> int:
    """Return how much of a disk may be taken: all of one that only the run lives on, else what leaves the machine alive."""
    free = shutil.disk_usage(folder).free
    device = folder.stat().st_dev
    vital = False
    for name in (*VITAL, str(Path.home())):
        with contextlib.suppress(OSError):
            vital = vital or os.stat(name).st_dev == device
    most = free - KEEP_FREE_BYTES if vital else free
    kinds = {p.mountpoint: p.fstype for p in psutil.disk_partitions(all=True)}
    mount = next((m for m in sorted(kinds, key=len, reverse=True) if folder.resolve().is_relative_to(m)), "/")
    if kinds.get(mount) in {"tmpfs", "ramfs"}:  # its pages are the machine's memory
        most = min(most, int(psutil.virtual_memory().available * MEMORY_SHARE))
    return max(min(wanted_bytes, most), 0)


def _helper(what: str, target: str, seconds: float) -> None:
    """Start a process that undoes a fault: it sees to that also when this node dies meanwhile."""
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).with_name("undo.py")),
        what,
        target,
        str(seconds),
        str(os.getpid()),
    ]
    subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
