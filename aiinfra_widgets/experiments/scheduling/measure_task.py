"""A training job on the nodes that it was given: data-parallel steps, in which nobody but its members meets.

# P parameters, n members
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ...ranks.buffers import FlatBuffers
from ...ranks.collectives import recursive_doubling
from ...ranks.members import Members
from ...ranks.node import Node
from ...workloads import nets
from .spec import SchedulingSpec
from .wire import Word

LEARNING_RATE, MOMENTUM = 0.05, 0.9
#: A job that is late makes good for it, but never for more than this.
MOST_BEHIND_S = 0.005


class Trainer:
    """The net and data that every job of a run trains, loaded once per node; a job brings its own state."""

    def __init__(self, spec: SchedulingSpec, node: Node) -> None:
        torch.set_num_threads(1)
        self.work = nets.load(spec.workload, seed=spec.seed, cache=node.cache)
        self.flat = FlatBuffers(list(self.work.module.parameters()), 2 + 2 * node.world.size, torch.device("cpu"))
        self._fresh, self._link = self.flat.parameters.clone(), node.link

    def reset(self) -> None:
        """Begin a job: the initial parameters, no momentum."""
        self.flat.parameters.copy_(self._fresh)
        self.flat.momentum.zero_()

    def step(self, among: Members, seed: int, batch: int, word: Word) -> tuple[float, Word]:
        """Do one step on all members; return the loss and the leader's word."""
        flat, (x, y) = self.flat, self.work.train
        rng = np.random.default_rng([seed, among.rank])
        index = torch.from_numpy(rng.integers(0, len(x), batch))
        flat.gradients.zero_()
        loss = self.work.loss_sum(self.work.module(x[index]), y[index]) / (batch * among.size)
        loss.backward()
        flat.put_tail(among.rank, among.size, float(loss.detach()), word if among.rank == 0 else 0, time.monotonic())
        recursive_doubling(among, flat.reduced(among.size), self._link)
        flat.momentum.mul_(MOMENTUM).add_(flat.gradients)
        flat.parameters.add_(flat.momentum, alpha=-LEARNING_RATE)
        total, heard, _ = flat.read_tail(among.rank, among.size)
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
        self._among = Members(node.comm, members)
        self.leader = self._among.rank == 0
        trainer.reset()
        self.loss, self.steps = float("nan"), 0
        if self.path.exists():
            state = load_file(self.path)
            for name, tensor in trainer.flat.state.items():
                tensor.numpy()[:] = state[name]
            self.steps_left, self.steps = float(state["counts"][0]), int(state["counts"][1])
        self._due_s = self.saved_s = time.monotonic()

    @property
    def path(self) -> Path:
        """Where its checkpoint lies."""
        return self.folder / f"{self.job}.safetensors"

    def step(self, word: Word) -> Word:
        """Do one step, and return what the leader said with it."""
        self.loss, heard = self.trainer.step(self._among, self.job * 1_000_003 + self.steps, self.spec.batch, word)
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
        save_file({**{name: tensor.numpy() for name, tensor in flat.state.items()}, "counts": counts}, part)
        part.replace(self.path)
        self.saved_s = time.monotonic()


def steps_on_disk(folder: Path, job: int) -> float | None:
    """Return how many steps a job's checkpoint has left, None where there is none."""
    path = folder / "jobs" / f"{job}.safetensors"
    return float(load_file(path)["counts"][0]) if path.exists() else None
