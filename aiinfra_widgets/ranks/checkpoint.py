"""Checkpoints: a new folder, forced to disk, renamed into place, then the pointer LATEST. No pickle: safetensors and JSON.

Whatever is killed at whatever moment, LATEST names a complete checkpoint or none. Where all active nodes hold the same state each
of them writes its own slice of it (`shards`), in a thread, from a copy; the first of them leads: it makes the folder, waits for the
others' notes there and completes it. Nobody waits for a node that died: that checkpoint is given up, and the next one is whole.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunFormatError, StorageError
from ..runs.layout import RunDir, write_json
from ..texts import N_
from . import shards
from .shards import Arrays

#: How many are kept where the Spec does not say.
KEEP = 2
#: The leader gives a checkpoint up when for so long nobody wrote a byte of it; between two looks it sleeps, longer each time.
PATIENCE_S, SHORTEST_S, LONGEST_S = 600.0, 0.002, 0.1
#: While the main thread waits, it looks this often who is still alive.
LOOK_S = 0.05
#: 1 had all arrays in one file.
FORMAT = 2
_NAME = re.compile(r"[0-9]{1,18}(\.[0-9a-f]+)?")


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says of itself: ticks done, the Spec to go on with, the segment; and how many are kept with it."""

    tick: int
    spec: Mapping[str, Any]
    segment: int
    keep: int = KEEP


class CheckpointWriter:
    """Writes in a thread of its own, from a copy, so that training waits only for the copy.

    Args:
        run: Where to.
        event: Told "checkpoint" once one is whole on disk, not before, or "checkpoint-given-up"; of the leader.
        node: This node's number in the pool.
        alive: Returns the numbers of the nodes that live; called from the main thread only, for it asks MPI.
    """

    def __init__(
        self, run: RunDir, event: Callable[..., None], node: int = 0, alive: Callable[[], Iterable[int]] | None = None
    ) -> None:
        self._run, self._event, self._node, self._alive = run, event, node, alive
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None
        self._whole = False
        self._owners: Sequence[int] = ()
        self._dead: frozenset[int] = frozenset()

    @property
    def busy(self) -> bool:
        """Whether the last checkpoint, or this node's part of it, is still on its way to the disk."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, tick: int) -> int:
        """Wait for the checkpoint before and make the folder of a new one. On the leader; the others need the number that it returns.

        Raises:
            StorageError: The one before could not be written, or this one cannot.
        """
        self.wait()
        number = secrets.randbits(48)
        _open(self._run, _part(self._run, tick, number))
        return number

    def write(
        self, number: int, head: Head, arrays: Arrays, owners: Sequence[int], begun_s: float | None = None
    ) -> None:
        """Copy this node's slice and start writing it.

        Args:
            number: What `begin` returned on the leader.
            head: The same on every owner.
            arrays: The whole state; the same on every owner.
            owners: Nodes that write, by their numbers in the pool; the first of them leads.
            begun_s: Since when training waits (`time.perf_counter`); since now, if not given.

        Raises:
            StorageError: This node's part of the one before could not be written.
        """
        begun_s = time.perf_counter() if begun_s is None else begun_s
        self.wait()
        rank, world = list(owners).index(self._node), len(owners)
        copy = {name: view.copy() for name, view in shards.slices(arrays, rank, world).items()}
        cost_s = time.perf_counter() - begun_s
        part, self._owners, self._whole = _part(self._run, head.tick, number), tuple(owners), False
        work = (
            (self._follow, part, rank, world, copy)
            if rank
            else (self._lead, part, head, copy, shards.shapes(arrays), cost_s)
        )
        self._thread = threading.Thread(target=work[0], args=work[1:], name="checkpoint")
        self._thread.start()

    def wait(self) -> bool:
        """Wait until the last checkpoint is on disk, or this node's part of it; return whether it was completed, on the leader.

        Raises:
            StorageError: It could not be written; the one before it is still whole.
        """
        if self._thread is not None:
            leads = len(self._owners) > 1 and self._owners[0] == self._node
            while self._thread.is_alive():
                self._thread.join(LOOK_S)
                if leads and self._alive:  # somebody may die meanwhile, and the thread must not ask MPI
                    self.lost(set(self._owners) - set(self._alive()))
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise StorageError(f"checkpoint not written: {problem}; the previous one is whole") from problem
        return self._whole

    def lost(self, nodes: Iterable[int], *, heir: bool = False) -> None:
        """Nodes died: what they have not written by now never will be. `heir`: one of them led, and this node takes its place."""
        self._dead |= frozenset(nodes)
        if heir:
            for part in self._run.checkpoints.glob(".*.part"):
                self._give_up(part, N_("the node that led it died"))

    # --- in the thread ------------------------------------------------------------------------------------------
    def _follow(self, part: Path, rank: int, world: int, copy: Arrays) -> None:
        try:
            shards.write(part, rank, world, copy)
        except Exception as error:
            if not part.exists():  # given up by who led
                return
            try:
                shards.failed(part, rank, world, _reason(error))
            except Exception:
                self._problem = error  # the leader cannot be told, so this node says it

    def _lead(self, part: Path, head: Head, copy: Arrays, shapes: Mapping[str, Sequence[int]], cost_s: float) -> None:
        begun_s, world = time.perf_counter(), len(self._owners)
        try:
            _write_first(self._run, part, world, copy)
            notes = self._collect(part)
            if notes is None:
                return
            _complete(self._run, part, head, shapes, notes)
            self._whole = True
            figures = {"bytes": sum(int(n["bytes"]) for n in notes), "shards": world}
            write_time_s = time.perf_counter() - begun_s
            self._event("checkpoint", tick=head.tick, cost_s=cost_s, write_time_s=write_time_s, **figures)
        except Exception as error:
            _discard(part)
            self._problem = error

    def _collect(self, part: Path) -> list[shards.Note] | None:
        """Wait for every owner's note and return them in order; None where the checkpoint had to be given up.

        Raises:
            StorageError: An owner has no room; names it.
        """
        owners, pause_s = self._owners, SHORTEST_S
        grown_s, size = time.monotonic(), -1
        while True:
            dead = self._dead  # before the look: who is dead by now has written what it ever will
            found = shards.notes(part, len(owners))
            for rank, note in found.items():
                if "error" in note:
                    raise StorageError(f"rank {rank} (node {owners[rank]}) cannot write its part: {note['error']}")
            missing = [node for rank, node in enumerate(owners) if rank not in found]
            if not missing:
                return [found[rank] for rank in range(len(owners))]
            if lost := sorted(dead & set(missing)):
                self._give_up(part, N_(f"node {_listed(lost)} died before its part was written"), missing)
                return None
            now_s = time.monotonic()
            if (now := shards.size_bytes(part)) != size:
                grown_s, size = now_s, now
            elif now_s - grown_s > PATIENCE_S:
                self._give_up(part, N_(f"node {_listed(missing)} wrote nothing for {PATIENCE_S:.0f} s"), missing)
                return None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_S)

    def _give_up(self, part: Path, reason: str, missing: Sequence[int] = ()) -> None:
        self._event("checkpoint-given-up", tick=_tick(part), missing=list(missing), reason=reason)
        _discard(part)


def save(run: RunDir, tick: int, spec: Mapping[str, Any], segment: int, arrays: Arrays, *, keep: int = KEEP) -> Path:
    """Write one checkpoint alone, wait until it is on disk, and move LATEST to it.

    Args:
        run: Where to.
        tick, spec, segment: See `Head`.
        arrays: Any shape, any dtype that safetensors knows.
        keep: How many stay, this one included.

    Raises:
        StorageError: Disk full or read-only; the one before is still whole.
    """
    part = _part(run, tick, secrets.randbits(48))
    _open(run, part)
    try:
        _write_first(run, part, 1, shards.slices(arrays, 0, 1))
        head = Head(tick, spec, segment, keep)
        return _complete(run, part, head, shards.shapes(arrays), [shards.notes(part, 1)[0]])
    except StorageError:
        _discard(part)
        raise


def load(run: RunDir) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]] | None:
    """Return (meta, arrays) of the checkpoint LATEST points to, or None where there is none. The arrays are whole, whoever wrote them.

    Raises:
        RunFormatError: It is damaged; names the file.
    """
    pointer = run.checkpoints / "LATEST"
    if not pointer.exists():
        return None
    folder = pointer
    try:
        name = pointer.read_text().strip()
        if not _NAME.fullmatch(name):
            raise ValueError(f"it holds {name[:40]!r}, which is no name of a checkpoint")
        folder = run.checkpoints / name
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        kept = {"tick": int(meta["tick"]), "spec": dict(meta["spec"]), "segment": int(meta["segment"])}
        if "format" not in meta:
            return {**kept, "world_size": 1}, shards.verified(folder / "state.safetensors", meta["sha256"])
        if meta["format"] != FORMAT:
            raise ValueError(f"meta.json is of format {meta['format']!r}; this release reads up to {FORMAT}")
        checksums = [str(note["sha256"]) for note in meta["shards"]]
        return {**kept, "world_size": len(checksums)}, shards.read(folder, checksums, dict(meta["arrays"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        others = sorted(p.name for p in run.checkpoints.glob("[0-9]*") if p != folder)
        way_out = f"to go back, write {others[-1]} into {pointer}" if others else "there is no other; start a new run"
        raise RunFormatError(f"checkpoint {folder} is damaged: {error}; {way_out}") from error


# --- the leader's steps -----------------------------------------------------------------------------------------
def _part(run: RunDir, tick: int, number: int) -> Path:
    """The folder of a checkpoint under way; the number sets it apart from one of the same tick that was given up."""
    return run.checkpoints / f".{tick:010d}.{number:012x}.part"


def _tick(part: Path) -> int | None:
    text = part.name.split(".")[1]
    return int(text) if text.isdecimal() else None


def _discard(part: Path) -> None:
    """Remove a checkpoint under way. Its name goes first and at once: who still writes there must find all of it gone, not a file."""
    gone = part.with_suffix(".gone")
    with contextlib.suppress(OSError):
        part.rename(gone)
    for left in (gone, part):  # the latter where the disk takes no new name
        shutil.rmtree(left, ignore_errors=True)


def _open(run: RunDir, part: Path) -> None:
    try:
        for left in run.checkpoints.glob(".*.part"):  # of a leader that was killed: there is one at a time
            _discard(left)
        for left in run.checkpoints.glob(".*.gone"):  # of somebody who was killed while it was removed
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise _cannot(run, error) from error


def _write_first(run: RunDir, part: Path, world: int, pieces: Arrays) -> None:
    from safetensors import SafetensorError

    try:
        shards.write(part, 0, world, pieces)
    except (OSError, SafetensorError) as error:
        raise _cannot(run, error) from error


def _complete(
    run: RunDir, part: Path, head: Head, shapes: Mapping[str, Sequence[int]], notes: Sequence[shards.Note]
) -> Path:
    """All shards are on disk: say so in meta.json, rename, move LATEST, and let go of the oldest."""
    try:
        about = {"tick": head.tick, "spec": dict(head.spec), "segment": head.segment}
        files = {"arrays": dict(shapes), "shards": [{"bytes": n["bytes"], "sha256": n["sha256"]} for n in notes]}
        write_json(part / "meta.json", {"format": FORMAT, "world_size": len(notes), **about, **files}, durable=True)
        shards.tidy(part, len(notes))
        shards.sync(part)
        # A second checkpoint of the same tick gets a folder of its own: the one that LATEST names is never touched.
        name = f"{head.tick:010d}"
        taken = any(run.checkpoints.glob(f"{name}*"))
        final = run.checkpoints / (f"{name}.{secrets.token_hex(3)}" if taken else name)
        part.rename(final)
        shards.sync(run.checkpoints)
        pointer = run.checkpoints / ".LATEST"
        pointer.write_text(final.name)
        shards.sync(pointer)
        pointer.replace(run.checkpoints / "LATEST")
        shards.sync(run.checkpoints)
    except OSError as error:
        raise _cannot(run, error) from error
    older = sorted((p for p in run.checkpoints.glob("[0-9]*") if p != final), key=lambda p: p.stat().st_mtime_ns)
    for old in older[: max(len(older) + 1 - head.keep, 0)]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _cannot(run: RunDir, error: Exception) -> StorageError:
    return StorageError(f"cannot write a checkpoint in {run.checkpoints}: {_reason(error)}")


def _listed(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
