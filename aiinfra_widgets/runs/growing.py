"""A table that grows for as long as a run goes on: appending costs what is appended, and looking at it costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import Columns, length

if TYPE_CHECKING:
    import pandas as pd

WHOLE = frozenset({"incarnation", "node", "writer", "tick", "nodes", "segment"})


class Growing:
    """Columns with room to spare, doubled when full; a column that comes later is NaN before."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.size = 0
        self._columns: dict[str, np.ndarray[Any, Any]] = {c: self._fresh(c, 1024) for c in columns}

    def append(self, rows: Columns) -> None:
        """Add rows; whole-number columns stay whole numbers, everything else is float64."""
        room, needed = len(next(iter(self._columns.values()))), self.size + length(rows)
        if needed > room:
            room = max(needed, 2 * room)
            for name, old in self._columns.items():
                self._columns[name] = self._fresh(name, room)
                self._columns[name][: self.size] = old[: self.size]
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = self._fresh(name, room)
            self._columns[name][self.size : needed] = values
        self.size = needed

    def frame(self) -> pd.DataFrame:
        """Return all rows as a data frame over the same memory; it does not change when rows are added."""
        import pandas as pd

        return pd.DataFrame({name: column[: self.size] for name, column in self._columns.items()}, copy=False)

    @staticmethod
    def _fresh(name: str, room: int) -> np.ndarray[Any, Any]:
        return np.zeros(room, np.int64) if name in WHOLE else np.full(room, np.nan)
