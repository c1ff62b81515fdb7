"""Writing one node's share of a run: samples, events, heartbeat. Append only, one writer per file.

A step's arithmetic leaves nothing of this code in the cache, and cold code is ten times as slow: so samples are kept as
they are and written together every FLUSH_S. A killed process loses at most what it measured in its last FLUSH_S.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..errors import StorageError
from .layout import RunDir, make_room

FLUSH_S = 0.1
BEAT_S = 0.25
#: Columns that every sample begins with.
HEAD = ("tick", "t_s", "nodes", "segment")
#: Columns that every row of a record begins with.
RECORD_HEAD = ("t_s", "segment")


class EventWriter:
    """Appends events of one writer, one JSON object per line, each with monotonic and wall time."""

    def __init__(self, run: RunDir, incarnation: int, writer: int | str) -> None:
        self.run, self.incarnation, self._writer = run, incarnation, writer
        self._file = _append_only(run.events(incarnation, writer))

    def __call__(self, kind: str, **data: Any) -> None:
        """Append one event; `data` holds plain JSON types."""
        line = {"t_s": time.monotonic(), "wall_s": time.time(), "by": self._writer, "kind": kind, **data}
        try:
            text = json.dumps(line, default=str, allow_nan=False)
        except ValueError:
            text = json.dumps(_plain(line), default=str)
        _write(self._file, (text + "\n").encode())

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


class RecordWriter:
    """Appends rows of one node to the experiment's records, as CSV; a table's file is made with its first row.

    A row is put into words when it comes: hundreds of them at once, at a flush, would hold up who has a clock to keep.
    """

    def __init__(self, run: RunDir, incarnation: int, node: int, tables: Mapping[str, tuple[str, ...]]) -> None:
        self._path = partial(run.records, incarnation, node)
        self._tables = tables
        self._files: dict[str, int] = {}
        self._kept: dict[str, list[str]] = {}

    def __call__(self, table: str, segment: int, row: tuple[float, ...]) -> None:
        """Keep one row until the next flush.

        Args:
            table: Its name.
            segment: To which the row belongs: the one in which the thing began.
            row: Numbers in the order of the declared columns, NaN where not measured.
        """
        cells = ",".join(["" if v is None or v != v else f"{v:.12g}" for v in row])
        self._kept.setdefault(table, []).append(f"{time.monotonic():.6f},{segment},{cells}")

    def flush(self) -> None:
        """Hand every kept row to the operating system."""
        for table, rows in self._kept.items():
            if not rows:
                continue
            head = [] if table in self._files else [",".join((*RECORD_HEAD, *self._tables[table]))]
            if table not in self._files:
                path = self._path(table)
                path.parent.mkdir(exist_ok=True)  # a run of an earlier release has no such folder
                self._files[table] = _append_only(path)
            text = "\n".join((*head, *rows, ""))
            rows.clear()
            _write(self._files[table], text.encode())

    def close(self) -> None:
        """Flush and release the files."""
        self.flush()
        for file in self._files.values():
            os.close(file)


class SampleWriter:
    """Appends samples of one node as CSV. The columns are fixed by the first sample; its records are flushed with them."""

    def __init__(self, run: RunDir, incarnation: int, node: int, records: RecordWriter | None = None) -> None:
        self.records = records
        self._file = _append_only(run.samples(incarnation, node))
        self._beat = run.heartbeat(incarnation, node)
        self._beat.touch()
        self._beat_at = self._flushed_at = time.monotonic()
        self._names: tuple[str, ...] = ()
        self._header = False
        self._kept: list[tuple[Any, ...]] = []

    def __call__(self, tick: int, nodes: int, segment: int, values: Mapping[str, float]) -> None:
        """Keep the sample of `tick`, and write all that are kept when FLUSH_S is over.

        Args:
            tick: Of the experiment.
            nodes: Active nodes in this tick.
            segment: Index of the segment.
            values: Quantity name to number, NaN or None where not measured; the same names every time.
        """
        now = time.monotonic()
        if not self._names:
            self._names = tuple(values)
            self._header = True
        assert len(values) == len(self._names), f"samples of {self._names} cannot become {tuple(values)}"
        self._kept.append((tick, now, nodes, segment, *values.values()))
        if now - self._flushed_at >= FLUSH_S:
            self.flush(now)
        if now - self._beat_at >= BEAT_S:
            self.beat(now)

    def flush(self, now: float | None = None) -> None:
        """Hand every kept sample to the operating system."""
        self._flushed_at = time.monotonic() if now is None else now
        if self.records:
            self.records.flush()
        if not self._kept:
            return
        lines = [",".join((*HEAD, *self._names))] if self._header else []
        for tick, t_s, nodes, segment, *values in self._kept:
            row = ",".join(["" if v is None or v != v else f"{v:.9g}" for v in values])
            lines.append(f"{tick},{t_s:.6f},{nodes},{segment},{row}")
        self._header = False
        self._kept.clear()
        _write(self._file, ("\n".join(lines) + "\n").encode())

    def beat(self, now: float | None = None) -> None:
        """Say "still here"; also while paused or idle."""
        self._beat_at = time.monotonic() if now is None else now
        os.utime(self._beat)

    def beat_if_due(self) -> None:
        """Beat at most every BEAT_S."""
        if time.monotonic() - self._beat_at >= BEAT_S:
            self.beat()

    def close(self) -> None:
        """Flush and release the file."""
        self.flush()
        if self.records:
            self.records.close()
        os.close(self._file)


def finite(value: float | None) -> float | None:
    """Return `value`, or None where it is not a finite number (JSON has no NaN)."""
    return value if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return `value` with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return finite(value) if isinstance(value, float) else value


def _append_only(path: os.PathLike[str]) -> int:
    try:
        return os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from error


def _write(file: int, data: bytes) -> None:
    """Write everything, or say why not: a full disk takes a part of a line and then nothing."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(file, view) :]
        except OSError as error:
            raise StorageError(
                f"cannot write to the run directory: {error.strerror}; {make_room(error)}, then resume the run from its checkpoint"
            ) from error
