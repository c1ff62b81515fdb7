"""Checkpoints: a new folder, forced to disk, renamed into place, then the pointer LATEST. No pickle: safetensors and JSON.

Whatever is killed at whatever moment, LATEST names a complete checkpoint or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunFormatError, StorageError
from ..runs.layout import RunDir, write_json

Arrays = Mapping[str, np.ndarray[Any, Any]]
KEEP = 2


class CheckpointWriter:
    """Writes in a thread of its own, from a copy, so that training waits only for the copy."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def write(self, tick: int, spec: Mapping[str, Any], segment: int, arrays: Arrays) -> None:
        """Start writing the state of `tick`; waits for the one before.

        Raises:
            StorageError: The previous one could not be written.
        """
        self.wait()
        copy = {name: np.array(array, copy=True) for name, array in arrays.items()}
        self._thread = threading.Thread(target=self._save, args=(tick, dict(spec), segment, copy), name="checkpoint")
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

    def _save(self, tick: int, spec: dict[str, Any], segment: int, arrays: Arrays) -> None:
        try:
            save(self._run, tick, spec, segment, arrays)
        except Exception as error:
            self._problem = error


def save(run: RunDir, tick: int, spec: Mapping[str, Any], segment: int, arrays: Arrays) -> Path:
    """Write one checkpoint and move LATEST to it. `arrays` are contiguous, any dtype that safetensors knows."""
    from safetensors.numpy import save_file

    name = f"{tick:010d}"
    part = run.checkpoints / f".{name}.{os.getpid()}"
    final = run.checkpoints / name
    try:
        part.mkdir()
        state = part / "state.safetensors"
        save_file(dict(arrays), state)
        meta = {"tick": tick, "spec": dict(spec), "segment": segment, "sha256": _sha256(state)}
        write_json(part / "meta.json", meta, durable=True)
        _sync(state)
        _sync(part)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        pointer = run.checkpoints / ".LATEST"
        pointer.write_text(str(tick))
        _sync(pointer)
        pointer.replace(run.checkpoints / "LATEST")
        _sync(run.checkpoints)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StorageError(f"cannot write a checkpoint in {run.checkpoints}: {error.strerror or error}") from error
    for old in sorted(run.checkpoints.glob("[0-9]*"))[:-KEEP]:
        if old != final:
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
    folder = run.checkpoints / f"{int(pointer.read_text()):010d}"
    state = folder / "state.safetensors"
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        if _sha256(state) != meta["sha256"]:
            raise ValueError("its checksum is not the one written")
        return meta, load_file(state)
    except (OSError, ValueError, KeyError) as error:
        raise RunFormatError(
            f"checkpoint {folder} is damaged: {error}; delete it and put another number into {pointer}"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
