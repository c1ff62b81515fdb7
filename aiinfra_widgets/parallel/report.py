"""The end of a step: one exchange that carries loss, ballots and every rank's notes, and splits time into waiting and moving.

# n ranks, L numbers of a rank's notes
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from ..models.rank_grid import RankGrid
from .ledger import AXES, Call, Ledger

HEAD = 8
#: Notes that fit before the ranks have agreed on more.
FIRST_LENGTH = 64
_CODE = {axis: code for code, axis in enumerate(AXES)}


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of one rank's step went, besides arithmetic.

    Attributes:
        loss, verdict: Sums over the ranks.
        began_s: When the first rank began the step.
        waited_s: In collectives, for the last one to come.
        idle_s: For messages that were not handed over yet.
        moved_s: In collectives and messages, besides waiting.
        end_wait_s: At the step's end, for the last one.
    """

    loss: float
    verdict: int
    began_s: float
    waited_s: float
    idle_s: float
    moved_s: float
    end_wait_s: float


class Report:
    """The exchange at the end of each step.

    Args:
        comm: The active ranks.
        grid: Which rank is where.
    """

    def __init__(self, comm: MPI.Intracomm, grid: RankGrid) -> None:
        self.comm, self.grid, self._length = comm, grid, FIRST_LENGTH
        me = comm.rank
        self._members = {"tp": grid.group(me, "tp"), "cp": grid.group(me, "cp"), "data": grid.group(me, "dp", "cp")}
        self._members["mirror"] = tuple({(me - 1) % comm.size, me, (me + 1) % comm.size})  # to and from a neighbour
        self._stages = grid.group(me, "pp")

    def exchange(self, ledger: Ledger, begun_s: float, loss: float, ballot: int) -> Split:
        """Exchange the notes of this step; every rank calls it last."""
        notes = self._notes(ledger, begun_s, loss, ballot)
        everyone = self._gather(notes)
        while (longest := int(everyone[:, 6].max())) > self._length:  # seen by all alike; only after a change
            self._length = longest + longest // 4
            everyone = self._gather(notes)
        left_s = time.perf_counter()
        entered = everyone[:, 1]
        me = self.comm.rank
        end_wait_s = min(max(float(entered.max()) - notes[1], 0.0), left_s - notes[1])
        waited_s, idle_s, moved_s = self._split(ledger, everyone)
        return Split(
            float(everyone[:, 2].sum()), int(everyone[:, 3].sum()), float(everyone[:, 0].min()), waited_s, idle_s,
            moved_s + left_s - everyone[me, 1] - end_wait_s, end_wait_s,
        )  # fmt: skip

    def _notes(self, ledger: Ledger, begun_s: float, loss: float, ballot: int) -> list[float]:
        """[begun, entered, loss, ballot, calls, posts, length, 0, (axis, entered) ..., (to, key, posted) ...]."""
        body: list[float] = []
        collectives = 0
        for call in ledger.calls:
            if call.key < 0:
                body += (_CODE[call.axis], call.enter_s)
                collectives += 1
        for to, key, posted_s in ledger.posts:
            body += (to, key, posted_s)
        length = HEAD + len(body)
        return [begun_s, time.perf_counter(), loss, ballot, collectives, len(ledger.posts), length, 0.0, *body]

    def _gather(self, notes: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        mine = np.zeros(self._length)
        fits = min(len(notes), self._length)
        mine[:fits] = notes[:fits]
        everyone = np.empty((self.comm.size, self._length))
        self.comm.Allgather(mine, everyone)
        return everyone

    def _split(
        self, ledger: Ledger, everyone: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    ) -> tuple[float, float, float]:
        """Return (waited in collectives, idle for messages, moved)."""
        latest = {axis: self._latest(axis, everyone) for axis in {c.axis for c in ledger.calls if c.key < 0}}
        nth = dict.fromkeys(latest, 0)
        posts = self._posts(ledger.calls, everyone)
        waited_s = idle_s = moved_s = 0.0
        for call in ledger.calls:
            if call.key < 0:
                last_s = latest[call.axis][nth[call.axis]]
                nth[call.axis] += 1
                wait_s = min(max(last_s - call.enter_s, 0.0), call.time_s)
                waited_s += wait_s
            else:
                wait_s = min(max(posts[call.source, call.key] - call.enter_s, 0.0), call.time_s)
                idle_s += wait_s
            moved_s += call.time_s - wait_s
        return waited_s, idle_s, moved_s

    def _latest(self, axis: str, everyone: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[float]:
        """Return when the last rank of this axis entered each of its collectives, in order."""
        columns = []
        for rank in self._members[axis]:
            row = everyone[rank]
            pairs = row[HEAD : HEAD + 2 * int(row[4])].reshape(-1, 2)
            columns.append(pairs[pairs[:, 0] == _CODE[axis], 1])
        found: list[float] = np.max(columns, axis=0).tolist()
        return found

    def _posts(
        self, calls: list[Call], everyone: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    ) -> dict[tuple[int, int], float]:
        """Return when each message to this rank was handed over, by (sender's stage, key)."""
        me = self.grid.place(self.comm.rank)["pp"]
        found: dict[tuple[int, int], float] = {}
        for source in {c.source for c in calls if c.key >= 0}:
            row = everyone[self._stages[source]]
            begin = HEAD + 2 * int(row[4])
            for to, key, posted_s in row[begin : begin + 3 * int(row[5])].reshape(-1, 3):
                if int(to) == me:
                    found[source, int(key)] = float(posted_s)
        return found
