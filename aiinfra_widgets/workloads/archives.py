"""Numeric archives on disk: `.npz` files that hold the arrays x and y, written atomically and read with suspicion.

Legend: N samples, D numbers per sample. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StorageError

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]
#: An archive that unpacks to more than this is refused before it is unpacked.
MAX_UNPACKED_BYTES = 2 * 2**30

_BROKEN = (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


def expected(inputs: int, outputs: int) -> str:
    """Return the sentence that says what an archive must hold."""
    y = f"({', '.join(filter(None, ['N', str(outputs)]))})" + (" or (N,)" if outputs == 1 else "")
    return (
        f"expected an .npz archive with finite real numbers: x of shape (N, {inputs}) and y of shape {y}, N at least 1"
    )


def read(path: Path, inputs: int, outputs: int) -> Arrays:
    """Return x (N, inputs) and y (N, outputs), float32, C-contiguous, all finite.

    Args:
        path: An `.npz` archive with the arrays x and y; other arrays in it are ignored. Integers and other floats are
            converted; a y of shape (N,) counts as (N, 1).
        inputs: Numbers per sample in x.
        outputs: Numbers per sample in y.

    Raises:
        DataError: Missing, unreadable, truncated, too large, or not what was declared. Names the path, what was found,
            what was expected and the next step.
    """

    def refuse(found: str, then: str) -> DataError:
        return DataError(f"{path}: {found}; {expected(inputs, outputs)}; {then}")

    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        too_large = sum(sizes.values()) > MAX_UNPACKED_BYTES
        if not too_large and {"x", "y"} <= sizes.keys():
            with np.load(path, allow_pickle=False) as arrays:
                x, y = arrays["x"], arrays["y"]
    except (FileNotFoundError, NotADirectoryError) as error:
        folder = path.parent
        there = sorted(p.name for p in folder.glob("*.npz"))[:5] if folder.is_dir() else None
        beside = "the folder does not exist" if there is None else f"archives there: {', '.join(there) or 'none'}"
        raise refuse(f"no such file ({beside})", f"save one with numpy.savez('{path.name}', x=x, y=y)") from error
    except PermissionError as error:
        raise refuse(f"not readable by this user ({error.strerror})", "change its permissions") from error
    except _BROKEN as error:
        raise refuse(f"unreadable or truncated ({error})", "copy the file again or save it anew") from error
    if too_large:
        limit = f"{MAX_UNPACKED_BYTES / 2**30:g} GiB"
        raise refuse(f"unpacks to {sum(sizes.values()) / 2**30:.3g} GiB, the limit is {limit}", "save fewer samples")
    if not {"x", "y"} <= sizes.keys():
        raise refuse(f"holds the arrays {', '.join(sorted(sizes)) or 'none'}", "name the arrays x and y when saving")
    try:
        return _checked("x", x, inputs), _checked("y", y, outputs, len(x) if x.ndim else 0)
    except ValueError as error:
        raise refuse(str(error), "correct the array and save it anew") from error


def _checked(name: str, array: NDArray[np.generic], columns: int, rows: int | None = None) -> NDArray[np.float32]:
    """Return `array` as float32 (N, columns), or raise ValueError that says what was found."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {array.dtype}, which is no real number")
    if array.ndim == 1 and columns == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != columns or not array.shape[0]:
        raise ValueError(f"{name} has shape {array.shape}")
    if rows is not None and len(array) != rows:
        raise ValueError(f"x has {rows} samples and {name} has {len(array)}")
    with np.errstate(over="ignore"):
        plain: NDArray[np.float32] = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(plain).all(axis=1))
    if bad.size:
        raise ValueError(f"{name} has NaN, infinity or a number beyond float32 in {bad.size} rows, first row {bad[0]}")
    return plain


def write(path: Path, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write x and y as an `.npz` archive that appears whole or not at all, whoever else writes it at the same time.

    Raises:
        StorageError: If the folder cannot be made or written (read-only, full).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                np.savez(file, x=x, y=y)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot write {(x.nbytes + y.nbytes) / 2**20:.3g} MiB of generated data "
            f"({error.strerror or error}); the cache must be a writable folder with room; "
            "choose another cache folder or free some space"
        ) from error


def read_or_make(path: Path, inputs: int, outputs: int, make: Callable[[], Arrays]) -> Arrays:
    """Return what `path` holds; if it is not there, or damaged, write what `make` returns and read that.

    For files of the cache only: what is in it can always be made again, so damage is repaired, not reported.
    Several processes may do this at once, as `make` gives the same numbers in each and `write` replaces atomically.

    Raises:
        StorageError: As `write`.
    """
    try:
        return read(path, inputs, outputs)
    except DataError:
        write(path, *make())
        return read(path, inputs, outputs)
