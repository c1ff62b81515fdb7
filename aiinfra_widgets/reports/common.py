"""What one report and a batch of them share, without what a notebook needs to run or to be shown: a batch itself loads neither."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

#: A cell of a lab ends within this; the longest lab run is stated in its spec, so a hang is a hang.
CELL_TIMEOUT_S = 900.0
START_TIMEOUT_S = 60.0
#: Templates and styles.
PAGE = Path(__file__).parent / "page"


def moment(text: str | None) -> str:
    """Return an ISO time for a reader."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC") if text else "unknown time"


def seconds(value: float | None) -> str:
    """Return a duration for a reader, "" for None."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60)} s"
