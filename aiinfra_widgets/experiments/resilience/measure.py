"""Training under failures, on real ranks. What fails here is a node's *state*, not its process.

A failing node's arrays are overwritten with NaN: nothing that it held survives. Its process lives on and takes the place of
the node that replaces it, so that a pool of ranks can meet one failure after the other. (A process that is really killed is
another thing: the faults that can be sent into any run do that, and the survivors go on as the runtime has it.)

restart: every node drops its state, reads the last checkpoint from disk, verifies its checksum, and goes on from its step.
in-place: the survivors keep theirs; one of them broadcasts it, and only the node that failed has it anew.

The first node keeps the books and says before every action what it is: one broadcast. So all do the same, whoever fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mpi4py import MPI

from ...errors import LabError
from ...experiment import Spec
from ...models.rank_grid import RankGrid
from ...parallel.engine import Ask, Job, floats
from ...parallel.flat_engine import FlatEngine
from ...parallel.layout import Layout
from ...parallel.optimizer import Optimizer
from ...parallel.plan import Plan
from ...ranks import checkpoint
from ...ranks.node import Arrays, Node, Program
from ...runs.layout import RunDir
from ...workloads import catalog, nets
from .books import Books
from .spec import ResilienceSpec
from .trace import FailureTrace

#: A tick: after this time the run looks for requests, once the action under way is done.
WINDOW_S = 0.1
#: Of the last writing time that is left for writing, when a checkpoint has to stand for slower storage.
ROOM = 1.5
STEP, CHECKPOINT, FAIL, RECOVER, WINDOW = range(5)


class Trainer(Program):
    """One node's part. `word` is what the first node broadcasts: action, node, seconds to stand still, position, clock."""

    def __init__(self, spec: Spec, node: Node) -> None:
        assert isinstance(spec, ResilienceSpec)
        self.spec, self.node, self.tick = spec, node, 0
        torch.set_num_threads(1)
        facts = catalog.facts(spec.workload)
        work = nets.load(spec.workload, seed=spec.seed, cache=node.cache)
        optimizer = Optimizer.make(facts.optimizer, 0.9, 0.0)
        train = floats(work.train[0], torch.float32), floats(work.train[1], torch.float32)
        layout = Layout.of(work.module)
        job = Job(work, layout, optimizer, torch.device("cpu"), torch.float32, node.link, train)
        self.engine = FlatEngine(job, node.world.size)
        self.count = len(train[0])
        self.trace = FailureTrace(spec.seed)
        self.steps = np.zeros(1, np.int64)
        self.clock = np.zeros(2)  # position on the trace, seconds told
        self.word = np.zeros(5)
        self.books = Books(self.trace)
        # A folder of its own: the runtime writes others (when asked, at the end) in a thread, and two would be in each other's way.
        self.disk = RunDir(node.folder)
        self.disk.checkpoints.mkdir(parents=True, exist_ok=True)
        self.saved_step = -1
        self.write_s = 0.0
        self.loss = math.nan
        self.due: float | None = None  # a failure struck that nobody knows of, so long ago
        self.mending = False
        self.mark_s = 0.0
        self.order: torch.Tensor | None = None
        self.epoch = -1

    # --- what the runtime asks ----------------------------------------------------------------------------------
    def state(self) -> Arrays:
        """Return weights, the optimiser's numbers, steps done, and where the run is on its trace."""
        return {**self._held(), "steps": self.steps, "clock": self.clock}

    def gather(self) -> None:
        """The runtime writes a checkpoint of its own, or the run ends: what was done so far is safe."""
        self._settle()

    def leave(self, spec: Spec, *, regrouped: bool) -> None:
        """A segment ends; what was done in it is useful, for a checkpoint is written before the next one begins."""
        self._settle()

    def join(self, spec: Spec) -> None:
        """Take a place among the nodes. A segment begins with a checkpoint that belongs to none."""
        assert isinstance(spec, ResilienceSpec)
        self.spec, node = spec, self.node
        self.engine.join(Plan(RankGrid.of(node.size)), node.comm)
        self.due, self.mending = None, False
        if self.steps[0] < 0 or self._behind():  # lost with a node that really died, or the run was killed as a whole
            self._load(everything=self.steps[0] == 0)
        if not node.controller:
            return
        books = self.books
        if (books.position, books.clock_s) != tuple(self.clock):  # resumed, or in the place of a first node that died
            books = self.books = Books(self.trace, position=float(self.clock[0]), clock_s=float(self.clock[1]))
        books.rate = 1 / spec.job_mtbf_s
        self._save()
        books.begin_segment()

    def advance(self) -> Mapping[str, float] | None:
        """Act for one window: steps, checkpoints, failures, recoveries, as the trace has it."""
        if self.clock[1] >= self.spec.duration_s or self._complete():
            return None
        end_s = float(self.clock[1]) + WINDOW_S
        self.mark_s = time.perf_counter()
        while (action := self._next(end_s)) != WINDOW:
            if action == STEP:
                self._step()
            elif action == CHECKPOINT:
                self._checkpoint()
            elif action == FAIL:
                self._fail()
            else:
                self._recover()
        self.tick += 1
        first = self.node.controller
        found = self.books.shares() if first else dict.fromkeys(self.books.shares(), math.nan)
        return {**found, "steps_kept": float(self.steps[0]), "loss": self.loss}

    # --- one action, on every node ------------------------------------------------------------------------------
    def _next(self, end_s: float) -> int:
        """Return what to do now: the first node looks into its books, the others hear it."""
        word = self.word
        if self.node.controller:
            word[:3] = self._decide(end_s)
            word[3:] = self.books.position, self.books.clock_s
        if self.node.size > 1:
            self.node.comm.Bcast(word, 0)
        self.clock[:] = word[3:]
        return int(word[0])

    def _decide(self, end_s: float) -> tuple[float, float, float]:
        """Return action, node and seconds to stand still first. On the first node."""
        books, spec = self.books, self.spec
        if self.due is not None:
            struck = self.trace.node(books.struck - 1, self.node.size)
            return FAIL, struck, max(spec.detection_time_s - self.due, 0.0)
        if self.mending:
            left_s = min(spec.recovery_time_s, books.left_s())  # a failure meanwhile begins it anew
            return RECOVER, self.trace.node(books.struck - 1, self.node.size), left_s
        if books.clock_s >= end_s or self._complete():
            return WINDOW, 0, 0.0
        if books.work_s >= spec.interval_s:
            wait_s = max(spec.checkpoint_cost_s - ROOM * self.write_s, 0.0)
            return CHECKPOINT, 0, wait_s if spec.hands_over else min(wait_s, books.left_s())
        return STEP, 0, 0.0

    def _step(self) -> None:
        step = int(self.steps[0])
        done = self.engine.step(Ask(self._index(step), step + 1, self.spec.rate))
        if not math.isfinite(done.loss):
            raise LabError(
                f"the loss is {done.loss} after step {step + 1}: a state that was lost is in use; report this"
            )
        self.loss = done.loss
        self.steps[0] += 1
        if self.node.controller:
            self.due = self.books.step(self._lap())

    def _checkpoint(self) -> None:
        """Stand still as slower storage would, then write. A failure meanwhile leaves the one before it."""
        time.sleep(float(self.word[2]))
        if not self.node.controller:
            return
        if not self.spec.hands_over and self.books.left_s() <= self.word[2]:
            self.books.torn_checkpoint(self._lap())
            self.due = 0.0
            return
        self._save()
        time.sleep(max(self.spec.checkpoint_cost_s - (time.perf_counter() - self.mark_s), 0.0))
        self.due = self.books.checkpoint(self._lap())
        self._tell()

    def _fail(self) -> None:
        """A node's state is gone; nobody knows until the timeout."""
        node, struck = self.node, int(self.word[1])
        if node.rank == struck or not self.spec.hands_over:
            self._poison()
        time.sleep(float(self.word[2]))
        if node.controller:
            late_s, self.due, self.mending = self.due or 0.0, None, True
            if not self.spec.hands_over:
                self.books.undo()
            self.books.unnoticed(self._lap() + late_s)
            node.event("node-failed", tick=self.tick, node=node.ids([struck])[0], recovery=self.spec.recovery)

    def _recover(self) -> None:
        """Get the state back: from the disk, or from who survived."""
        begun_s, struck = time.perf_counter(), int(self.word[1])
        if self.spec.hands_over:
            root = 1 if struck == 0 else 0
            for _, array in sorted({**self._held(), "steps": self.steps}.items()):
                self.node.comm.Bcast(array, root)
        else:
            self._load()
        time.sleep(max(float(self.word[2]) - (time.perf_counter() - begun_s), 0.0))
        if not self.node.controller:
            return
        books = self.books
        if books.left_s() <= self.word[2]:
            books.torn_recovery(self._lap())
            self.due, self.mending = 0.0, False
        else:
            self.due, self.mending = books.recover(self._lap()), False
            self._tell()

    def _complete(self) -> bool:
        return 0 < self.spec.steps <= int(self.steps[0])

    # --- state --------------------------------------------------------------------------------------------------
    def _held(self) -> Arrays:
        """What a node holds in its memory, and loses when it fails."""
        return {name: tensor.numpy() for name, tensor in self.engine.whole().items()}

    def _poison(self) -> None:
        for array in self._held().values():
            array.fill(math.nan)
        self.steps[0] = -1

    def _save(self) -> None:
        """Write a checkpoint and wait until it is whole on disk. On the first node."""
        if self.saved_step == self.steps[0]:
            return
        begun_s = time.perf_counter()
        spec, keep = self.spec.model_dump(), self.spec.checkpoints_kept
        checkpoint.save(self.disk, int(self.steps[0]), spec, self.node.segment, self.state(), keep=keep)
        self.write_s, self.saved_step = time.perf_counter() - begun_s, int(self.steps[0])

    def _behind(self) -> bool:
        """Whether the run begins anew though a checkpoint of its own is on disk: it was killed, and is resumed."""
        there = np.array([self.tick == 0 and (self.disk.checkpoints / "LATEST").exists()], np.int64)
        self.node.comm.Bcast(there, 0)
        return bool(there[0])

    def _load(self, *, everything: bool = False) -> None:
        """Read the last checkpoint, verified; every node for itself, as nodes do. With `everything` also the clock.

        Raises:
            RunFormatError: It is damaged.
            LabError: There is none, or nodes read different ones.
        """
        found = checkpoint.load(self.disk)
        if found is None:
            raise LabError(f"no checkpoint in {self.disk.checkpoints} to start again from; start a new run")
        _, arrays = found
        for name, array in self._held().items():
            array[...] = arrays[name]
        self.steps[0] = arrays["steps"][0]
        if everything:
            self.clock[:] = arrays["clock"]
        ends = np.array([self.steps[0], -self.steps[0]])
        self.node.comm.Allreduce(MPI.IN_PLACE, ends, MPI.MAX)
        if ends[0] != -ends[1]:
            raise LabError(f"nodes read different checkpoints, of steps {-ends[1]} to {ends[0]}; resume the run")

    def _settle(self) -> None:
        """Write what was done, at no charge: on the first node, the stretch ends as useful."""
        if self.node.controller:
            self._save()
            self.books.keep()
            self._tell()

    def _tell(self) -> None:
        for row in self.books.rows:
            self.node.record("stretches", self.node.segment, row)
        self.books.rows.clear()

    def _lap(self) -> float:
        """Return the time since the last action ended, so that nothing between two actions is forgotten."""
        now_s = time.perf_counter()
        spent_s, self.mark_s = now_s - self.mark_s, now_s
        return spent_s

    def _index(self, step: int) -> Any:
        """Return the places of a step's global batch in the training data: a step that is done again sees the same."""
        batch = self.spec.global_batch
        epoch, place = divmod(step, max(1, self.count // batch))
        if epoch != self.epoch or self.order is None:
            generator = torch.Generator().manual_seed(self.spec.seed * 1_000_003 + epoch)
            self.order, self.epoch = torch.randperm(self.count, generator=generator), epoch
        return self.order[place * batch : (place + 1) * batch]
