"""Rows of samples and records as columns of numbers: parsed, joined, and combined over the nodes of a tick.

A view looks ten times a second at a few rows of each node; data frames cost milliseconds for each of these steps, whatever
their size. So rows are plain arrays here, and a data frame is made of them where somebody asks for one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: float64 by column name, all of one length; NaN is "not measured".
Columns = dict[str, np.ndarray[Any, Any]]
#: From so many bytes on pandas reads faster than a loop over lines.
MANY_BYTES = 2**17


def parse(data: bytes, names: Sequence[str], needed: Iterable[str]) -> Columns:
    """Return whole lines of a CSV file without its head as numbers.

    A line that a full disk tore and that was written on is left out: it has too many fields, or lacks one of `needed`. An empty
    field, one that is no number, and one that is missing at the end of a line is NaN.
    """
    lines = [line for line in data.split(b"\n") if line and line.count(b",") < len(names)]
    table = _read(lines, names) if len(data) >= MANY_BYTES else _split(lines, len(names))
    found = {name: table[:, i] for i, name in enumerate(names)}
    whole = np.logical_and.reduce([np.isfinite(found[name]) for name in needed if name in found])
    return found if whole.all() else {name: column[whole] for name, column in found.items()}


def _split(lines: Sequence[bytes], width: int) -> np.ndarray[Any, Any]:
    rows = [[_number(field) for field in line.split(b",")] for line in lines]
    return np.array([row + [np.nan] * (width - len(row)) for row in rows], float).reshape(-1, width)


def _number(field: bytes) -> float:
    try:
        return float(field) if field else np.nan
    except ValueError:
        return np.nan


def _read(lines: Sequence[bytes], names: Sequence[str]) -> np.ndarray[Any, Any]:
    import pandas as pd

    last = len(names) - 1
    even = b"\n".join(line + b"," * (last - line.count(b",")) for line in lines)
    frame = pd.read_csv(
        io.BytesIO(even), names=list(names), index_col=False, encoding_errors="replace", low_memory=False
    ) if lines else pd.DataFrame(columns=list(names))  # fmt: skip
    found: np.ndarray[Any, Any] = frame.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    return found


def joined(blocks: Sequence[Columns]) -> Columns:
    """Return blocks one after another; a column that one of them lacks is NaN there."""
    names = dict.fromkeys(name for block in blocks for name in block)
    sizes = [length(block) for block in blocks]
    return {
        name: np.concatenate([b[name] if name in b else np.full(n, np.nan) for b, n in zip(blocks, sizes, strict=True)])
        for name in names
    }


def length(block: Columns) -> int:
    """Return how many rows there are."""
    return len(next(iter(block.values()))) if block else 0


def picked(block: Columns, which: np.ndarray[Any, Any]) -> Columns:
    """Return some of the rows, by a mask or by their places."""
    return {name: column[which] for name, column in block.items()}


def combined(rows: Columns, keys: Sequence[str], ways: Mapping[str, str]) -> Columns:
    """Return one row for each set of equal `keys`, in their order; what is not measured anywhere stays so.

    Args:
        rows: At least one.
        keys: Columns that rows are grouped by; the first counts most.
        ways: How each further column is combined: max, sum, mean or first. Others are left out.
    """
    rows = picked(rows, np.lexsort([rows[key] for key in reversed(keys)]))
    starts = _starts_of(rows, keys)
    found = {key: rows[key][starts] for key in keys}
    for name, way in ways.items():
        found[name] = _WAYS[way](rows[name], starts)
    return found


def _starts_of(rows: Columns, keys: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the place of the first row of each group, where equal keys stand next to each other."""
    changes = np.logical_or.reduce([np.diff(rows[key]) != 0 for key in keys])
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _max(values: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.fmax.reduceat(values, starts)


def _sum(values: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    there = np.isfinite(values)
    total, count = np.add.reduceat(np.where(there, values, 0.0), starts), np.add.reduceat(there.astype(int), starts)
    return np.where(count > 0, total, np.nan)  # a sum of nothing is "not measured", no measured zero


def _mean(values: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    count = np.add.reduceat(np.isfinite(values).astype(int), starts)
    return _sum(values, starts) / np.maximum(count, 1)


def _first(values: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    places = np.where(np.isfinite(values), np.arange(len(values)), len(values))
    first = np.minimum.reduceat(places, starts)
    ends = np.append(starts[1:], len(values))
    return np.where(first < ends, values[np.minimum(first, len(values) - 1)], np.nan)


_WAYS = {"max": _max, "sum": _sum, "mean": _mean, "first": _first}
