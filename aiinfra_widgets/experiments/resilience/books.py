"""Where the wall time went: the books that the first node keeps. Pure: told every time, without a clock of its own.

A *stretch* is what lies between two checkpoints, or between a checkpoint and the failure that undoes it. Work counts as useful
only when a checkpoint holds it, or when the run or the segment ends with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .trace import FailureTrace
from .vocabulary import SHARES

PARTS = ("useful_s", "checkpoint_s", "lost_s", "restart_s", "detection_s")
Row = tuple[float, ...]


@dataclass
class Books:
    """The run's clock, the position on the trace, and the times of the open stretch.

    Attributes:
        trace: Of the failures.
        rate: Failures per second of exposed time.
        position: On the trace, in units of the mean.
        clock_s: Time told so far.
        work_s: Of the open stretch; a failure undoes it.
        totals: Seconds by part, of the segment so far.
        rows: Stretches that were closed and not yet taken, as `vocabulary.STRETCHES`.
    """

    trace: FailureTrace
    rate: float = 0.0
    position: float = 0.0
    clock_s: float = 0.0
    work_s: float = 0.0
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    rows: list[Row] = field(default_factory=list)
    checkpoints: int = 0
    recoveries: int = 0
    _open: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _begun_s: float = 0.0
    _before: int = 0

    def __post_init__(self) -> None:
        self.struck = self._before = self.trace.next_after(self.position)

    def left_s(self) -> float:
        """Return after how many seconds of exposed time the next failure strikes."""
        return (self.trace.at(self.struck) - self.position) / self.rate

    def step(self, spent_s: float) -> float | None:
        """Work went on for `spent_s`. Return how long ago a failure struck, or None; work since then was in vain."""
        late_s = self._expose(spent_s)
        self.work_s += spent_s - (late_s or 0.0)
        self.clock_s += spent_s - (late_s or 0.0)
        return late_s

    def checkpoint(self, spent_s: float) -> float | None:
        """A checkpoint is whole: the stretch is kept. Return as `step`; who fails so late finds it on disk."""
        late_s = self._expose(spent_s)
        self.clock_s += spent_s
        self._open["checkpoint_s"] += spent_s
        self.checkpoints += 1
        self.keep()
        return None if late_s is None else 0.0

    def torn_checkpoint(self, spent_s: float) -> None:
        """A failure struck while a checkpoint was written: it is none."""
        self._strike()
        self.clock_s += spent_s
        self._open["lost_s"] += spent_s

    def undo(self) -> None:
        """A failure takes the work since the last checkpoint."""
        self._open["lost_s"] += self.work_s
        self.work_s = 0.0

    def unnoticed(self, spent_s: float) -> None:
        """Everybody stood still; nothing fails meanwhile."""
        self._open["detection_s"] += spent_s
        self.clock_s += spent_s

    def torn_recovery(self, spent_s: float) -> None:
        """A failure struck while the job was started again."""
        self._strike()
        self.clock_s += spent_s
        self._open["restart_s"] += spent_s

    def recover(self, spent_s: float) -> float | None:
        """Work goes on after `spent_s`. Return as `checkpoint`."""
        late_s = self._expose(spent_s)
        self.clock_s += spent_s
        self._open["restart_s"] += spent_s
        self.recoveries += 1
        self.close()
        return None if late_s is None else 0.0

    def close(self) -> None:
        """End the open stretch after a failure; what was useful of it stays open as work."""
        if any(self._open.values()):
            row = (self._before, *(self._open[p] for p in PARTS), self._begun_s, self.clock_s)
            self.rows.append(row)
            for part, spent_s in self._open.items():
                self.totals[part] += spent_s
                self._open[part] = 0.0
        self._begun_s, self._before = self.clock_s, self.struck

    def keep(self) -> None:
        """What was done is safe: the open stretch ends as useful."""
        self._open["useful_s"] += self.work_s
        self.work_s = 0.0
        self.close()

    def begin_segment(self) -> None:
        """Sums begin anew; the clock and the trace go on."""
        self.totals = dict.fromkeys(PARTS, 0.0)
        self.checkpoints = self.recoveries = 0
        self._begun_s, self._before = self.clock_s, self.struck

    def shares(self) -> dict[str, float]:
        """Return where the time of the segment went so far, by name; work that is still open counts as useful."""
        spent = [self.totals[p] + self._open[p] for p in PARTS]
        spent[0] += self.work_s
        whole_s = sum(spent)
        return {name: s / whole_s if whole_s else 0.0 for name, s in zip(SHARES, spent, strict=True)}

    def _expose(self, spent_s: float) -> float | None:
        """Move on the trace. Return how long ago a failure struck, if one did; the position stays at it."""
        left_s = self.left_s()
        if spent_s < left_s:
            self.position += spent_s * self.rate
            return None
        self._strike()
        return spent_s - left_s

    def _strike(self) -> None:
        self.position = self.trace.at(self.struck)
        self.struck += 1
