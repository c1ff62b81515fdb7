"""The lab's own engine for any plan: a grid of ranks, units cut and dealt out over it, a store that keeps replicas alike.

Gradients are sums over micro-batches and replicas of a loss that is divided by the global batch, so every plan computes
what one process computes, but for the order of additions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from mpi4py import MPI
from torch import Tensor

from ..errors import LabError
from ..models.kinds import DATA, UPDATE
from ..models.rank_grid import Axis, share
from ..models.schedules import order
from ..ranks import nccl
from ..workloads.parts import Part, stages
from .engine import EVALUATION_BATCH, Ask, Done, Engine, Job, Judged, floats
from .grid_axes import GridAxes
from .groups import Group, split
from .hooks import Hooks
from .layout import Whole
from .ledger import Ledger
from .mirror import Mirror, Ring
from .nccl_group import NcclWorld
from .pipeline import Pipeline, Shape
from .plan import Plan
from .report import Report, Split
from .stores import make_store
from .units import build


class GridEngine(Engine):
    """See `Engine`."""

    def __init__(self, job: Job, plan: Plan, comm: MPI.Intracomm) -> None:
        super().__init__(job, plan, comm)
        grid, self.ledger = plan.grid, Ledger()
        self.nccl = self._nccl_world()
        self.place = grid.place(comm.rank)
        self.tp = self._group("tp", "tp")
        self.cp = self._group("cp", "cp")
        self.data = self._group("data", "dp", "cp")
        self.pp = self._group("pp", "pp")
        context, split_tokens = job.work.net.context, plan.sequence_parallel
        self.axes = GridAxes(self.tp, self.cp, context=context, sequence_parallel=split_tokens, device=job.device)
        parts = job.work.net.parts
        cuts = stages([p.cost for p in parts], grid.pp_size * plan.chunks)
        mine = [parts[cuts[c * grid.pp_size + self.place["pp"]]] for c in range(plan.chunks)]
        self.chunks = [build(chunk, self.axes, job.work.module, job.device, job.dtype) for chunk in mine]
        self.units = [unit for chunk in self.chunks for unit in chunk]
        self.store = make_store(plan, self.units, self.data, self.tp, self.cp, job.optimizer, job.device, job.dtype)
        self.replicated = grid.dp_size == grid.world_size and self.store.replicated
        self.hooks = Hooks(self.store, self.units, recompute=plan.recompute, compiled=plan.compile)
        self.report = Report(comm, grid)
        self.operations = order(plan.schedule, grid.pp_size, plan.num_microbatches, self.place["pp"], plan.chunks)
        hidden = self._hidden([parts[c] for c in cuts])
        self.pipeline = Pipeline(
            self.chunks, self.pp, self.ledger, self.hooks.forward, self._loss, hidden, self._autocast()
        )
        self.ring: Ring | None = None
        self._targets: list[Tensor] = []
        self._batch_size = 1

    # --- a step ---------------------------------------------------------------------------------------------------
    def step(self, ask: Ask) -> Done:
        """See `Engine`."""
        ledger, clock = self.ledger, time.perf_counter
        ledger.begin(ask.tracing)
        t0 = clock()
        with ledger.operation(DATA):
            inputs = self._microbatches(ask.index)
        t1 = clock()
        self.store.begin()
        loss = self.pipeline.run(self.operations, inputs, ask.slow_factor)
        self.store.finish()
        with ledger.operation(UPDATE):
            self.store.update(ask.learning_rate, ask.step)
            self.sync_device()
            if self.ring and ask.step % self.plan.mirror_every == 0:
                self.ring.keep(ask.step)
        found = self.report.exchange(ledger, t0, loss if self.place["tp"] == 0 else 0.0, ask.ballot)
        t2 = clock()
        kept = [(k, m, a - found.began_s, b - found.began_s) for k, m, a, b in ledger.operations]
        return Done(found.loss, found.verdict, self._sample(found, t1 - t0, t2 - t0), kept)

    def _sample(self, found: Split, data_s: float, step_s: float) -> dict[str, float]:
        """Cut this rank's step into parts that add up."""
        link_s = min(self.job.link.take(), found.moved_s)
        # At the end of a step a pipeline runs dry: waiting there is its bubble; replicas alone wait for a straggler.
        piped = self.plan.grid.pp_size > 1
        bubble_s = found.idle_s + (found.end_wait_s if piped else 0.0)
        wait_s = found.waited_s + (0.0 if piped else found.end_wait_s)
        comm_s, injected_s = found.moved_s - link_s, link_s + self.pipeline.injected_s
        sample = {
            "step_time_s": step_s,
            "data_time_s": data_s,
            "compute_time_s": step_s - data_s - comm_s - wait_s - bubble_s - injected_s,
            "exposed_comm_time_s": comm_s,
            "straggler_wait_time_s": wait_s,
            "bubble_time_s": bubble_s,
            "injected_time_s": injected_s,
            "engine_time_s": 0.0,
            "sent_bytes": float(self.ledger.sent_bytes),
            "transient_bytes": float(self.store.peak_bytes()),
            "loss": found.loss,
        }
        return sample | self.device_memory()

    def _microbatches(self, index: Tensor) -> list[Tensor]:
        """Fetch this rank's share of the global batch, in micro-batches; a cp rank takes its tokens of every sequence."""
        plan, (x, y) = self.plan, self.job.train
        self._batch_size = len(index)
        mine = index[share(len(index), plan.grid.dp_size, self.place["dp"])]
        parts = [mine[share(len(mine), plan.num_microbatches, i)] for i in range(plan.num_microbatches)]
        first, last = self.place["pp"] == 0, self.place["pp"] == plan.grid.pp_size - 1
        self._targets = [self._tokens(y[p]) for p in parts] if last else []
        # Later stages never look at the inputs; they need to know how many samples come.
        return [self._tokens(x[p]) if first else p for p in parts]

    def _tokens(self, batch: Tensor) -> Tensor:
        return self.axes.take(batch) if self.job.work.net.sequence_dim else batch

    def _loss(self, outputs: Tensor, number: int) -> Tensor:
        return self.job.work.loss_sum(outputs, self._targets[number], self.axes) / self._batch_size

    # --- the whole state --------------------------------------------------------------------------------------------
    def load(self, whole: Whole) -> None:
        """See `Engine`."""
        self.store.load(self.job.layout, whole)

    def whole(self) -> Whole:
        """See `Engine`."""
        self.store.settle()
        found = self.job.layout.empty(self.job.optimizer.state_names, self.job.dtype)
        self.store.put(self.job.layout, found)
        for vector in found.values():  # every number was written by one rank, and is zero on the others
            self.comm.Allreduce(MPI.IN_PLACE, vector.numpy())
        return found

    def state_bytes(self) -> dict[str, int]:
        """See `Engine`."""
        return {**self.store.state_bytes(), "mirror": self.ring.held_bytes if self.ring else 0}

    def begin_mirror(self, mirror: Mirror, step: int) -> None:
        """See `Engine`."""
        job, store, data = self.job, self.store, self.plan.grid.group(self.comm.rank, "dp", "cp")
        copies = store.replicated and len(data) > 1  # a neighbour's copy would be one more
        kinds = ("parameters", *job.optimizer.state_names)
        self.ring = Ring(
            mirror, store.pieces(job.layout), job.layout, kinds, self.comm, self.ledger, job.link,
            owner=data[0] if copies else self.comm.rank, sends=not copies, step=step,
        )  # fmt: skip

    def evaluate(self, x: Tensor, y: Tensor) -> Judged:
        """See `Engine`."""
        found, grid = Judged(), self.plan.grid
        mine = share(len(x), grid.dp_size, self.place["dp"])
        counted = self.place["tp"] == 0
        # As many passes on every replica: with sharded parameters each pass is a collective over them.
        passes = -(-len(x) // (grid.dp_size * EVALUATION_BATCH))
        for i in range(passes):
            part = share(mine.stop - mine.start, passes, i)
            rows = slice(mine.start + part.start, mine.start + part.stop)
            outputs = self.pipeline.outputs(self._tokens(x[rows]))
            if outputs is None:
                continue
            y_here = self._tokens(y[rows])
            loss = float(self.job.work.loss_sum(outputs, y_here, self.axes))  # on every tp rank: it may be a collective
            if counted:
                found.add(self.job.work.facts.task, outputs, y_here, loss, (rows.stop - rows.start) / grid.cp_size)
        return found

    def abandon(self) -> None:
        """See `Engine`."""
        self.hooks.close()
        for group in (self.tp, self.cp, self.data, self.pp):
            group.abandon()

    def close(self) -> None:
        """See `Engine`."""
        self.hooks.close()
        for group in (self.tp, self.cp, self.data, self.pp):
            group.close()
        if self.nccl:
            self.nccl.close()

    # --- making it --------------------------------------------------------------------------------------------------
    def _nccl_world(self) -> NcclWorld | None:
        """Return torch's process group where GPUs can talk to each other and shall.

        Raises:
            LabError: NCCL was asked for and cannot be used, with the reason.
        """
        plan, device = self.plan, self.job.device
        asked = plan.transport == "nccl"
        if plan.transport == "mpi" or (device.type != "cuda" and not asked):
            return None
        if not nccl.possible(self.comm, device):
            if asked:
                raise LabError(
                    f"transport: nccl needs a GPU of its own for each of the {self.comm.size} nodes, on one host; device here: "
                    f"{device}; use transport=auto, or as many nodes as GPUs"
                )
            return None
        if plan.schedule == "interleaved" or self.job.link.active:
            if asked:
                raise LabError(
                    "transport: nccl keeps no messages apart and passes no injected link; use another schedule than interleaved "
                    "and no link_latency_s or link_bandwidth_bytes_per_s, or transport=mpi"
                )
            return None
        return NcclWorld(self.comm, device)

    def _group(self, name: str, *axes: Axis) -> Group:
        ranks = self.plan.grid.group(self.comm.rank, *axes)
        if self.nccl:
            return self.nccl.group(name, ranks, self.ledger)
        return split(self.comm, name, ranks, self.ledger, self.job.link, self.plan.algorithm)

    def _hidden(self, chunks: list[tuple[Part, ...]]) -> list[Shape]:
        """Return shape of one sample and type of what each virtual stage receives, as this rank's axes cut it.

        One sample goes through the whole net for that; of a sequence, one token is enough.
        """
        if len(chunks) == 1:
            return [((), self.job.dtype)]
        found: list[Shape] = []
        whole, x = self.job.work.module, self.job.train[0]
        first = next(whole.parameters())
        value = floats(x[:1, :1] if self.job.work.net.sequence_dim else x[:1], first.dtype).to(first.device)
        with torch.no_grad(), self._autocast()():
            for chunk in chunks:
                dtype = self.job.dtype if value.dtype == first.dtype else value.dtype
                found.append((self._local(tuple(value.shape[1:])), dtype))
                for part in chunk:
                    value = whole.get_submodule(part.name)(value)
        return found

    def _local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a sample's shape on this rank: sequence and context parallel hold some of its tokens."""
        if not self.job.work.net.sequence_dim or not shape:
            return shape
        return (self.axes.hidden_tokens, *shape[1:])

    def _autocast(self) -> Callable[[], AbstractContextManager[None]]:
        if self.plan.precision != "bf16":
            return nullcontext
        return lambda: torch.autocast(self.job.device.type, torch.bfloat16)
