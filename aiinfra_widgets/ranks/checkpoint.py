"""Checkpoints: a new folder, forced to disk, renamed into place, then the pointer LATEST. No pickle: safetensors and JSON.

Whatever is killed at whatever moment, LATEST names a complete checkpoint or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunFormatError, StorageError
from ..runs.layout import RunDir, write_json

Arrays = Mapping[str, np.ndarray[Any, Any]]
KEEP = 2
_NAME = re.compile(r"[0-9]{1,18}(\.[0-9a-f]+)?")


class CheckpointWriter:
    """Writes in a thread of its own, from a copy, so that training waits only for the copy."""

    def __init__(self, run: RunDir, event: Callable[..., None]) -> None:
        """Make the writer of `run`; `event("checkpoint", ...)` is told of each one once it is whole on disk, not before."""
        self._run, self._event = run, event
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def write(self, tick: int, spec: Mapping[str, Any], segment: int, arrays: Arrays) -> None:
        """Start writing the state of `tick`; waits for the one before.

        Raises:
            StorageError: The previous one could not be written.
        """
        begun_s = time.perf_counter()
        self.wait()
        copy = {name: np.array(array, copy=True) for name, array in arrays.items()}
        cost_s = time.perf_counter() - begun_s
        self._thread = threading.Thread(
            target=self._save, args=(tick, dict(spec), segment, copy, cost_s), name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            StorageError: It could not be written; the one before it is still whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise StorageError(f"checkpoint not written: {problem}; the previous one is whole") from problem

    def _save(self, tick: int, spec: dict[str, Any], segment: int, arrays: Arrays, cost_s: float) -> None:
        begun_s = time.perf_counter()
        try:
            save(self._run, tick, spec, segment, arrays)
            self._event("checkpoint", tick=tick, cost_s=cost_s, write_time_s=time.perf_counter() - begun_s)
        except Exception as error:
            self._problem = error


def save(run: RunDir, tick: int, spec: Mapping[str, Any], segment: int, arrays: Arrays) -> Path:
    """Write one checkpoint and move LATEST to it. `arrays` are contiguous, any dtype that safetensors knows."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # A second checkpoint of the same tick gets a folder of its own: the one that LATEST names is never touched.
    name = f"{tick:010d}"
    taken = sum(1 for _ in run.checkpoints.glob(f"{name}*"))
    final = run.checkpoints / (f"{name}.{secrets.token_hex(3)}" if taken else name)
    part = run.checkpoints / f".{final.name}.part"
    try:
        for left in run.checkpoints.glob(".*.part"):  # of a writer that was killed: there is one at a time
            shutil.rmtree(left)
        part.mkdir()
        state = part / "state.safetensors"
        save_file(dict(arrays), state)
        meta = {"tick": tick, "spec": dict(spec), "segment": segment, "sha256": _sha256(state)}
        write_json(part / "meta.json", meta, durable=True)
        _sync(state)
        _sync(part)
        part.rename(final)
        _sync(run.checkpoints)
        pointer = run.checkpoints / ".LATEST"
        pointer.write_text(final.name)
        _sync(pointer)
        pointer.replace(run.checkpoints / "LATEST")
        _sync(run.checkpoints)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot write a checkpoint in {run.checkpoints}: {reason}") from error
    older = sorted((p for p in run.checkpoints.glob("[0-9]*") if p != final), key=lambda p: p.stat().st_mtime_ns)
    for old in older[: 1 - KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load(run: RunDir) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]] | None:
    """Return (meta, arrays) of the checkpoint LATEST points to, or None where there is none.

    Raises:
        RunFormatError: It is damaged; names the file.
    """
    from safetensors.numpy import load_file

    pointer = run.checkpoints / "LATEST"
    if not pointer.exists():
        return None
    folder = pointer
    try:
        name = pointer.read_text().strip()
        if not _NAME.fullmatch(name):
            raise ValueError(f"it holds {name[:40]!r}, which is no name of a checkpoint")
        folder = run.checkpoints / name
        state = folder / "state.safetensors"
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        if _sha256(state) != meta["sha256"]:
            raise ValueError("its checksum is not the one written")
        meta = {"tick": int(meta["tick"]), "spec": dict(meta["spec"]), "segment": int(meta["segment"])}
        return meta, load_file(state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        others = sorted(p.name for p in run.checkpoints.glob("[0-9]*") if p != folder)
        way_out = f"to go back, write {others[-1]} into {pointer}" if others else "there is no other; start a new run"
        raise RunFormatError(f"checkpoint {folder} is damaged: {error}; {way_out}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
