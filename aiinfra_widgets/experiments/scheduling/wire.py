"""What the scheduler's rank and the nodes say to each other: float64 numbers, one message kind each. No pickle."""

from __future__ import annotations

from enum import IntEnum

#: Who waits for a message looks that often, and sleeps in between.
POLL_S = 5e-4

#: Scheduler to every member: take up a job. START_HEAD, then the members' ranks, the leader first.
START = 81
START_HEAD = ("job", "steps_left", "progress_per_step")
#: Scheduler to a job's leader: job, Word.
STOP = 82
#: Scheduler to all: verdict of the boundary, 1 when the run is over, seconds of the run.
WINDOW_END = 83
#: Leader to scheduler: Said, job, steps left, loss.
STATUS = 84
#: Node to scheduler, before a boundary that may change something: its job rests between two steps, and its leader saved it.
READY = 85
#: Node to scheduler, at every change of Spec or ranks: it has no job any more, and what it did of one is on disk.
REPORT = 86


class Word(IntEnum):
    """What a leader tells its members behind the gradients: all of them do it after the same step."""

    GO_ON = 0
    PREEMPT = 1
    GIVE_UP = 2
    HOLD = 3


class Said(IntEnum):
    """What a leader reports of its job."""

    PROGRESS = 0
    SAVED = 1
    FINISHED = 2
    LEFT = 3
