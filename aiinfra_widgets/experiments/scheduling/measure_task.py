"""A training job on the nodes that it was given: data-parallel steps on a communicator of its own.

# P parameters, n members
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI
from safetensors.numpy import load_file, save_file

from ...ranks.buffers import FlatBuffers
from ...ranks.node import Node
from ...workloads import nets
from . import wire
from .spec import SchedulingSpec
from .wire import Word

LEARNING_RATE, MOMENTUM = 0.05, 0.9
#: A job that is late makes good for it, but never for more than this.
MOST_BEHIND_S = 0.005
#: A rank that waits longer for a communicator waits for a dead one.
PATIENCE_S = 10.0


class Trainer:
    """The net and data that every job of a run trains, loaded once per node; a job brings its own state."""

    def __init__(self, spec: SchedulingSpec, node: Node) -> None:
        torch.set_num_threads(1)
        self.work = nets.load(spec.workload, seed=spec.seed, cache=node.cache)
        self.flat = FlatBuffers(list(self.work.module.parameters()), 2 + 2 * node.world.size, torch.device("cpu"))
        self._fresh = self.flat.parameters_host.copy()

    def reset(self) -> None:
        """Begin a job: the initial parameters, no momentum."""
        self.flat.parameters_host[:], self.flat.momentum_host[:] = self._fresh, 0.0

    def step(self, comm: MPI.Intracomm, seed: int, batch: int, word: Word) -> tuple[float, Word]:
        """Do one step on all members; return the loss and the leader's word."""
        flat, (x, y) = self.flat, self.work.train
        rng = np.random.default_rng([seed, comm.rank])
        index = torch.from_numpy(rng.integers(0, len(x), batch))
        flat.gradients.zero_()
        loss = self.work.loss_sum(self.work.module(x[index]), y[index]) / (batch * comm.size)
        loss.backward()
        flat.put_tail(comm.rank, comm.size, float(loss.detach()), word if comm.rank == 0 else 0, time.monotonic())
        if comm.size > 1:
            comm.Allreduce(MPI.IN_PLACE, flat.reduced(comm.size))
        flat.momentum.mul_(MOMENTUM).add_(flat.gradients)
        flat.parameters.add_(flat.momentum, alpha=-LEARNING_RATE)
        total, heard, _ = flat.read_tail(comm.rank, comm.size)
        return total, Word(heard)


class Task:
    """One job while it holds this node.

    Attributes:
        members: Their numbers in the pool.
        steps_left: Steps on the demanded nodes; one step on more nodes counts for more.
        leader: Whether this member speaks for the job.
    """

    def __init__(
        self, trainer: Trainer, node: Node, job: int, head: Sequence[float], members: Sequence[int], spec: SchedulingSpec
    ) -> None:  # fmt: skip
        self.trainer, self.job, self.spec = trainer, job, spec
        self.steps_left, self.progress = float(head[0]), float(head[1])
        self.folder = node.folder / "jobs"
        self.members = node.ids(members)
        self.comm = communicator(node.comm, members, tag=job % 1000)
        self.leader = self.comm.rank == 0
        trainer.reset()
        self.loss, self.steps = float("nan"), 0
        if self.path.exists():
            state = load_file(self.path)
            trainer.flat.parameters_host[:], trainer.flat.momentum_host[:] = state["parameters"], state["momentum"]
            self.steps_left, self.steps = float(state["counts"][0]), int(state["counts"][1])
        self._due_s = self.saved_s = time.monotonic()

    @property
    def path(self) -> Path:
        """Where its checkpoint lies."""
        return self.folder / f"{self.job}.safetensors"

    def step(self, word: Word) -> Word:
        """Do one step, and return what the leader said with it."""
        self.loss, heard = self.trainer.step(self.comm, self.job * 1_000_003 + self.steps, self.spec.batch, word)
        self.steps += 1
        self.steps_left -= self.progress
        self._due_s = max(self._due_s + self.spec.step_s, time.monotonic() - MOST_BEHIND_S)
        time.sleep(max(self._due_s - time.monotonic(), 0.0))
        return heard

    @property
    def finished(self) -> bool:
        """Whether all its work is done."""
        return self.steps_left <= 1e-9

    def save(self) -> None:
        """Write a checkpoint: whole, or the one before stays."""
        self.folder.mkdir(exist_ok=True)
        part = self.path.with_suffix(".part")
        flat = self.trainer.flat
        counts = np.array([self.steps_left, self.steps])
        save_file({"parameters": flat.parameters_host, "momentum": flat.momentum_host, "counts": counts}, part)
        part.replace(self.path)
        self.saved_s = time.monotonic()

    def abandon(self) -> None:
        """Wake everybody who waits in this job's communicator: it is of no use any more."""
        if self.comm != MPI.COMM_NULL and not self.comm.Is_revoked():
            self.comm.Revoke()

    def leave(self) -> None:
        """Give the communicator back; every member does, after the same step."""
        if self.comm != MPI.COMM_NULL and not self.comm.Is_revoked():
            self.comm.Free()


def communicator(comm: MPI.Intracomm, members: Sequence[int], tag: int) -> MPI.Intracomm:
    """Return a communicator of these ranks of `comm`, the leader first; all of them must call this, and nobody else.

    Open MPI waits forever in `Create_group` for a rank that is dead, also when `comm` is revoked. So they meet first, by
    messages that do tell of a death. Who dies in the fraction of a millisecond after that takes the others with it: nodes
    are lost then, but the run goes on.

    Raises:
        MPI.Exception: One of them, or anybody else in `comm`, is dead.
    """
    if len(members) > 1:
        leader, *others = members
        if comm.rank == leader:
            for other in others:
                _hear(comm, other, wire.HERE)
            for other in others:
                comm.Send(np.empty(0), other, wire.ALL_HERE)
        else:
            comm.Send(np.empty(0), leader, wire.HERE)
            _hear(comm, leader, wire.ALL_HERE)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)  # its signal ends this process
    found = comm.Create_group(comm.Get_group().Incl(list(members)), tag=tag)
    signal.setitimer(signal.ITIMER_REAL, 0)
    found.Set_errhandler(MPI.ERRORS_RETURN)
    return found


def _hear(comm: MPI.Intracomm, rank: int, tag: int) -> None:
    while not comm.Iprobe(rank, tag):
        time.sleep(wire.POLL_S)
    comm.Recv(np.empty(0), rank, tag)


def steps_on_disk(folder: Path, job: int) -> float | None:
    """Return how many steps a job's checkpoint has left, None where there is none."""
    path = folder / "jobs" / f"{job}.safetensors"
    return float(load_file(path)["counts"][0]) if path.exists() else None
