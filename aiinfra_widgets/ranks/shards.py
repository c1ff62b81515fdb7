"""The files inside a checkpoint: each of W writers leaves one slice of every array, and a note beside it once it is on disk.

An array is cut as one flat vector of n numbers, slice r of W being [r n / W, (r + 1) n / W): contiguous, all of them together the
whole, so that any number of ranks can read what any other number wrote. The writers meet in the file system alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.layout import write_json

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Note = dict[str, Any]


def name_of(rank: int, world: int) -> str:
    """Return the file name of a shard."""
    return f"state-{rank:05d}-of-{world:05d}.safetensors"


def slices(arrays: Arrays, rank: int, world: int) -> dict[str, Array]:
    """Return slice `rank` of `world` of each array, flat; views where the array is contiguous. Few numbers leave some slices empty."""
    found = {}
    for name, array in arrays.items():
        flat = array.reshape(-1)
        found[name] = flat[rank * flat.size // world : (rank + 1) * flat.size // world]
    return found


def shapes(arrays: Arrays) -> dict[str, list[int]]:
    """Return the shape of each array, as JSON holds it: what `join` needs beside the slices."""
    return {name: list(array.shape) for name, array in arrays.items()}


def join(pieces: Sequence[Arrays], shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Put the slices of all writers, in the order of their ranks, together again.

    Raises:
        ValueError, KeyError: Slices are missing, or do not make up arrays of these shapes.
    """
    return {
        name: np.concatenate([piece[name] for piece in pieces]).reshape([int(n) for n in shape])
        for name, shape in shapes.items()
    }


def write(folder: Path, rank: int, world: int, pieces: Arrays) -> None:
    """Force a shard to the disk, then leave the note that says so.

    Raises:
        OSError, SafetensorError, StorageError: It cannot be written, or the folder is gone.
    """
    from safetensors.numpy import save_file

    file = folder / name_of(rank, world)
    save_file(dict(pieces), file)
    sync(file)
    note = {"rank": rank, "bytes": file.stat().st_size, "sha256": sha256(file)}
    write_json(_note(folder, rank, world), note, durable=True)


def failed(folder: Path, rank: int, world: int, reason: str) -> None:
    """Leave word that a shard cannot be written; what there is of it makes room for that on a full disk.

    Raises:
        OSError, StorageError: Not even that is possible.
    """
    (folder / name_of(rank, world)).unlink(missing_ok=True)
    write_json(_note(folder, rank, world), {"rank": rank, "error": reason}, durable=True)


def notes(folder: Path, world: int) -> dict[int, Note]:
    """Return the notes there are so far, by rank.

    Raises:
        OSError: The folder cannot be read.
    """
    there = set(os.listdir(folder))  # opening a folder makes a shared file system look again; asking for a name may not
    paths = ((rank, _note(folder, rank, world)) for rank in range(world))
    return {rank: json.loads(path.read_text()) for rank, path in paths if path.name in there}


def tidy(folder: Path, world: int) -> None:
    """Remove the notes: what they said stands in meta.json."""
    for rank in range(world):
        _note(folder, rank, world).unlink(missing_ok=True)


def size_bytes(folder: Path) -> int:
    """Return what has been written so far, to see whether anybody still writes.

    Raises:
        OSError: The folder cannot be read.
    """
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # renamed or removed since
                total += entry.stat().st_size
    return total


def read(folder: Path, checksums: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Return the whole arrays of a checkpoint, every shard verified.

    Args:
        folder: Of the checkpoint.
        checksums: SHA-256 of each shard's file, in the order of ranks.
        shapes: Of the whole arrays, by name.

    Raises:
        OSError, ValueError, KeyError: A shard is missing or damaged; names the file.
    """
    pieces = [verified(folder / name_of(rank, len(checksums)), checksum) for rank, checksum in enumerate(checksums)]
    return join(pieces, shapes)


def verified(path: Path, checksum: str) -> dict[str, Array]:
    """Return the arrays of one safetensors file whose checksum is this one.

    Raises:
        OSError, ValueError: It is missing or damaged; names the file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if sha256(path) != checksum:
        raise ValueError(f"{path.name}: its checksum is not the one written")
    try:
        found: dict[str, Array] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return found


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _note(folder: Path, rank: int, world: int) -> Path:
    return (folder / name_of(rank, world)).with_suffix(".json")
