"""A node: trains the job that it was given, step by step, and listens between two steps; asleep while it has none."""

from __future__ import annotations

import math
import time

import numpy as np
from mpi4py import MPI

from ...ranks.node import Node
from . import wire
from .measure_task import Task, Trainer
from .spec import SchedulingSpec
from .wire import POLL_S, Said, Word

#: Every column of a sample, whatever the rank's role is.
SAMPLE = dict.fromkeys(("utilization_frac", "waiting_jobs", "running_jobs", "job_loss"), float("nan"))


class WorkerRole:
    """One node's side of the conversation."""

    def __init__(self, spec: SchedulingSpec, node: Node, clock: np.ndarray, trainer: Trainer) -> None:
        self.node, self.clock, self.spec, self.trainer = node, clock, spec, trainer
        self.task: Task | None = None
        self._word = Word.GO_ON
        self._held = self._rested = False
        self._busy_s, self._since_s = 0.0, time.monotonic()

    def join(self, spec: SchedulingSpec) -> None:
        """Take up a changed Spec or set of nodes: the scheduler will hand out the job again."""
        self.spec = spec
        self.let_go()
        self.node.comm.Send(np.empty(0), 0, wire.REPORT)

    def let_go(self) -> None:
        """Leave the job, if there is one; where a rank died, keep its state first."""
        task, rests = self.task, self._held
        self.task, self._held, self._word = None, False, Word.GO_ON
        if task and not rests:  # a rank died in the midst of it
            alive = set(self.node.ids())
            if next(m for m in task.members if m in alive) == self.node.id:
                task.save()

    def window(self) -> dict[str, float] | None:
        """Train until the scheduler says that the window is over; None when the run is."""
        comm, status = self.node.comm, MPI.Status()
        if (
            self._rested
        ):  # a leader may be a window ahead: who is told to rest does so until the boundary that it was for
            self._held = self._rested = False
        ending: np.ndarray | None = None
        while True:
            if comm.Iprobe(0, MPI.ANY_TAG, status):
                message = np.empty(status.Get_count(MPI.DOUBLE))
                comm.Recv(message, 0, status.Get_tag())
                if status.Get_tag() == wire.WINDOW_END:
                    ending = message
                else:
                    self._obey(status.Get_tag(), message)
            elif self.task and not self._held:
                self._step(bool(ending is not None and ending[0]))
            else:
                time.sleep(POLL_S)
            if ending is not None and (not ending[0] or self.task is None or self._held):
                return self._window_end(ending)

    def _obey(self, tag: int, message: np.ndarray) -> None:
        job = int(message[0])
        if tag == wire.START:
            members = [int(m) for m in message[len(wire.START_HEAD) :]]
            self.task = Task(
                self.trainer, self.node, job, message[1 : len(wire.START_HEAD)].tolist(), members, self.spec
            )
            self._word = Word.GO_ON
        elif self.task and self.task.job == job:
            self._word = Word(int(message[1]))

    def _step(self, boundary: bool) -> None:
        task = self.task
        assert task is not None
        begun_s = time.monotonic()
        word = Word.HOLD if boundary and self._word is Word.GO_ON else self._word
        heard = task.step(word)
        if task.finished:
            self._leave(Said.FINISHED)
        elif heard is Word.PREEMPT:
            if task.leader:
                task.save()
            self._leave(Said.LEFT)
        elif heard is Word.GIVE_UP:
            self._leave(Said.LEFT)
        elif heard is Word.HOLD:
            if task.leader:
                task.save()
            self._held = True
        elif task.leader and time.monotonic() - task.saved_s > self.spec.save_every_s:
            task.save()
            self._say(Said.SAVED)
        self._busy_s += time.monotonic() - begun_s

    def _leave(self, said: Said) -> None:
        self._say(said)
        self.task, self._word = None, Word.GO_ON

    def _say(self, said: Said) -> None:
        task = self.task
        if task and task.leader:
            self.node.comm.Send(np.array([said, task.job, max(task.steps_left, 0.0), task.loss]), 0, wire.STATUS)

    def _window_end(self, message: np.ndarray) -> dict[str, float] | None:
        verdict, over, self.clock[0] = message
        self.node.verdict = int(verdict)
        self._rested = bool(verdict)
        if verdict:
            self.node.comm.Send(np.empty(0), 0, wire.READY)
        else:
            self._say(Said.PROGRESS)
        now = time.monotonic()
        busy = min(self._busy_s / max(now - self._since_s, 1e-9), 1.0)
        self._busy_s, self._since_s = 0.0, now
        loss = self.task.loss if self.task else math.nan
        return None if over else {**SAMPLE, "utilization_frac": busy, "job_loss": loss}
