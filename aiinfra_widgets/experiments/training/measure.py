"""Training on real ranks: the batch of each step, the engine that takes it, and what passes from one engine to the next.

The whole state - parameters and the optimiser's tensors, each one flat vector in the order of `parallel.layout` - is the same
whatever the plan. When ranks or plan change, the old engine hands it over and the new one takes its share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from ...errors import DataError, LabError, StateLostError
from ...experiment import Spec
from ...parallel.engine import Ask, Done, Engine, Job, floats
from ...parallel.flat_engine import FlatEngine
from ...parallel.layout import Layout, Whole
from ...parallel.mirror import Mirror
from ...parallel.optimizer import Optimizer
from ...parallel.plan import Plan
from ...ranks import checkpoint
from ...ranks.node import Arrays, Node, Program
from ...runs.layout import RunDir
from ...workloads import catalog, nets
from ...workloads.language import load_base
from ...workloads.language_facts import BASES
from .spec import TrainingSpec

#: Epochs of small data take milliseconds: those of this time are told together, the last one's number with them.
EPOCHS_EVERY_S = 0.2
#: What every engine's sample may hold, and what is counted of its storage.
COLUMNS = (
    "step_time_s", "data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "bubble_time_s",
    "injected_time_s", "engine_time_s", "sent_bytes", "transient_bytes", "loss",
)  # fmt: skip
HELD = ("parameters", "gradients", "optimizer", "compression", "outer", "mirror")
#: Ticks of a segment after which one is traced first: the warm-up is over.
TRACED_FIRST = 6


class Trainer(Program):
    """One rank's part of the training."""

    agrees: ClassVar[bool] = True
    sharded_checkpoints: ClassVar[bool] = True

    def __init__(self, spec: Spec, node: Node) -> None:
        assert isinstance(spec, TrainingSpec)
        self.spec, self.node, self.tick = spec, node, 0
        self.device = _device(spec.device, node)
        torch.set_num_threads(spec.threads_per_node)
        data_dir = Path(spec.data_dir).expanduser() if spec.data_dir else None
        self.work = nets.load(
            spec.workload, seed=spec.seed, width=spec.width, depth=spec.depth, data_dir=data_dir, cache=node.cache
        )
        if spec.base_run:
            self._load_base(spec)
        dtype = torch.float64 if spec.precision == "float64" else torch.float32
        optimizer = Optimizer.make(spec.rule, spec.momentum, spec.weight_decay)
        self.test = tuple(floats(t, dtype).to(self.device) for t in self.work.test)
        train = floats(self.work.train[0], dtype).to(self.device), floats(self.work.train[1], dtype).to(self.device)
        layout = Layout.of(self.work.module)
        self.job = Job(self.work, layout, optimizer, self.device, dtype, node.link, train)
        self.accept(spec)
        self.engine: Engine | None = None
        self._flat: FlatEngine | None = None
        self._whole: Whole | None = None
        self._mirror = Mirror()
        if spec.plan(spec.nodes).is_plain:
            self._flat = FlatEngine(self.job, node.world.size)
        else:
            self._whole = layout.empty(optimizer.state_names, dtype)
            self._whole["parameters"].copy_(layout.flatten(self.work.module, dtype))
        self._plan: Plan | None = None
        self._columns = (*COLUMNS, *(("gpu_memory_bytes",) if self.device.type == "cuda" else ()))
        self._held: dict[str, float] = {}
        self._traced_at = 0
        self._traced: Done | None = None
        self._order: Tensor | None = None
        self._epoch = -1
        self._loss = 0.0
        self._epoch_losses: list[float] = []
        self._epoch_means: list[float] = []
        self._epoch_said_s = 0.0

    # --- what the runtime asks ----------------------------------------------------------------------------------
    @property
    def replicated(self) -> bool:  # type: ignore[override]
        """Survivors of a dead rank go on where each holds everything, and has it in place, or where a neighbour has a copy."""
        return self._flat is not None or self.spec.redundancy == "neighbour"

    def state(self) -> Arrays:
        """Return the whole state, P numbers each; current after `gather` and until the next step, or always where it is flat."""
        if self._flat is not None and self.device.type == "cpu":
            return {name: tensor.numpy() for name, tensor in self._flat.whole().items()}
        if self._whole is None:
            self._whole = self._flat.whole() if self._flat else self._empty()
        return {name: tensor.numpy() for name, tensor in self._whole.items()}

    def gather(self) -> None:
        """Collect the whole state on every active rank, where each has a share of it only."""
        if self._whole is None and self.engine is not None and self.engine is not self._flat:
            self._whole = self.engine.whole()

    def poison(self, *, here: bool) -> None:
        """Make the parameters NaN: this rank's replica, or its part of what all of them hold."""
        assert self.engine is not None
        if self._flat is not None:
            if here:
                self._flat.whole()["parameters"].fill_(math.nan)
            return
        self.gather()
        assert self._whole is not None
        self._whole["parameters"].fill_(math.nan)
        self.engine.load(self._whole)

    def leave(self, spec: Spec, *, regrouped: bool) -> None:
        """Hand the state over before ranks or plan change, while everybody can still be asked for his share."""
        assert isinstance(spec, TrainingSpec)
        if self.engine is None or (self.engine is self._flat and self.spec.plan(self.node.size).is_plain):
            return
        if regrouped or spec.plan(spec.nodes) != self._plan:
            self.gather()
            self.engine.close()
            self.engine = None

    def abandon(self) -> None:
        """See `Program`."""
        if self.engine is not None:
            self.engine.abandon()

    def mend(self) -> bool:
        """See `Program`: from a survivor that holds the whole state, else from the newest copies that they hold together."""
        comm, flat = self.node.comm, self._flat is not None
        found = np.empty((comm.size, 2), np.int64)
        comm.Allgather(np.array([flat, self.tick if flat or self._whole is not None else -1], np.int64), found)
        if found[:, 0].all():
            return False
        root = int(found[:, 1].argmax())
        whole, step = self._empty(), int(found[root, 1])
        if step >= 0:  # it died while the plan changed, before there were copies of what was handed over
            if comm.rank == root:
                whole = self._whole or {name: tensor.clone() for name, tensor in self._flat_whole().items()}
            for name in sorted(whole):
                comm.Bcast(whole[name].numpy(), root)
        elif number := self._mirror.newest(comm):
            step = self._mirror.rebuild(comm, number, whole)
        else:
            raise StateLostError("the nodes that are left hold no whole copy of the state: neighbours died together")
        if self._flat is not None:
            self._flat.close()
        if self.tick > step:  # those steps are done again, and their losses told again
            del self._epoch_losses[step - self.tick :]
        self.engine = self._flat = self._plan = None
        self._whole, self.tick = whole, step
        return True

    def accept(self, spec: Spec) -> None:
        """Refuse a batch that the person's own archive is too small for, and a plan that torch's engines do not know.

        Raises:
            DataError: With the number of samples there are.
            ModelInputError: What torch cannot do here.
        """
        assert isinstance(spec, TrainingSpec)
        if spec.global_batch > len(self.job.train[0]):
            found = f"{spec.data_dir or spec.workload} holds {len(self.job.train[0])} training samples"
            raise DataError(f"global_batch: got {spec.global_batch}; {found}; choose at most that")
        plan = spec.plan(spec.nodes)
        if plan.engine != "lab":
            from ...parallel.reference import check

            check(plan, self.work, spec.global_batch)

    def join(self, spec: Spec) -> None:
        """Take this rank's place under the plan, and its share of the state where the plan is another one."""
        assert isinstance(spec, TrainingSpec)
        self.spec, node = spec, self.node
        node.link.latency_s, node.link.bandwidth_bytes_per_s = spec.link_latency_s, spec.link_bandwidth_bytes_per_s
        self._traced_at = self.tick + TRACED_FIRST
        plan = spec.plan(node.size)
        if plan.is_plain and self._flat is not None:
            if self.device.type != "cpu" and self._whole is not None:
                self._flat.load(self._whole)
            self._flat.join(plan, node.comm)
            self.engine, self._plan, self._whole = self._flat, plan, None
        elif self.engine is None or plan != self._plan:
            self._change_engine(plan)
        assert self.engine is not None
        held = self.engine.state_bytes()
        self._held = {f"{kind}_bytes": float(held.get(kind, 0)) for kind in HELD}

    def advance(self) -> Mapping[str, float] | None:
        """One step: data, forward and backward, what the plan sends, update."""
        spec, node = self.spec, self.node
        if self.tick >= spec.steps:
            return None
        assert self.engine is not None
        assert self._plan is not None
        self._whole = None
        if not self._plan.mirrors:
            self._mirror.kept.clear()
        begun_s = time.perf_counter()
        index = self._index()
        slow = spec.slow_factor if spec.slow_node == node.rank else 1.0
        tracing = bool(spec.trace_every) and self.tick + 1 >= self._traced_at
        fetched_s = time.perf_counter() - begun_s
        done = self.engine.step(Ask(index, self.tick + 1, spec.rate, node.ballot, slow, tracing))
        self.tick += 1
        self._loss, node.verdict = done.loss, done.verdict
        done.sample["data_time_s"] += fetched_s
        done.sample["step_time_s"] += fetched_s
        self._traced = done if tracing else None
        # The columns are the same whatever the engine: torch's cannot tell arithmetic from communication.
        found = {name: done.sample.get(name, math.nan) for name in self._columns}
        return found | self._held

    def between(self) -> None:
        """Write a traced step; close an epoch; look at held-out data now and then: every rank takes its share of it."""
        if self._traced:
            self._record(self._traced)
        self._epoch_losses.append(self._loss)
        if self.tick % self._steps_per_epoch() == 0:
            self._epoch_means.append(float(np.mean(self._epoch_losses)))
            self._epoch_losses.clear()
            if self.node.controller and time.monotonic() - self._epoch_said_s > EPOCHS_EVERY_S:
                self._epoch_said_s = time.monotonic()
                number = self.tick // self._steps_per_epoch()
                self.node.event("epoch", tick=self.tick, epoch=number, mean_losses=self._epoch_means)
                self._epoch_means.clear()
        every = self.spec.evaluate_every
        if every and self.tick % every == 0:
            self.evaluate()
        if not math.isfinite(self._loss):
            said = f"the loss is {self._loss} at step {self.tick}"
            if self.node.controller:
                step = "resume at the last checkpoint, with a lower learning_rate if nobody poisoned it"
                self.node.event("alarm", what="nan", nodes=[], tick=self.tick, message=said, next_step=step)
            self.node.comm.Barrier()  # the first to raise ends them all; the loss is the same on all, so all come here
            raise LabError(
                f"the loss is {self._loss} after step {self.tick}; lower learning_rate (now {self.spec.rate:g})"
            )

    def evaluate(self) -> None:
        """Record held-out loss, and the workload's quality where that is another quantity, as an event of the controller."""
        node, task = self.node, self.work.facts.task
        assert self.engine is not None
        with torch.no_grad():
            judged = self.engine.evaluate(*self.test)
        sums = np.array([judged.loss_sum, judged.right, judged.count])
        node.comm.Allreduce(MPI.IN_PLACE, sums)
        found = {"held_out_loss": sums[0] / sums[2]}
        if task == "classification":
            found["accuracy_frac"] = sums[1] / sums[2]
        elif task == "binary":
            scores, targets = self._all_of(judged.scores), self._all_of(judged.targets)
            found["auc_frac"] = nets.auc_frac(scores, targets)
        if node.controller:
            node.event("evaluated", tick=self.tick, **found)

    def close(self) -> None:
        """The run ends here."""
        if self.engine is not None:
            self.engine.close()

    # --- inside -------------------------------------------------------------------------------------------------
    def _change_engine(self, plan: Plan) -> None:
        """Make the engine of `plan` and let it take its share of the whole state."""
        from ...parallel.engines import make_engine

        whole = self._whole
        if whole is None:
            whole = {name: tensor.clone() for name, tensor in self._flat_whole().items()}
        self._whole = whole  # until the new plan has a copy: who dies before costs the others nothing
        begun_s = time.perf_counter()
        if plan.is_plain:
            flat = FlatEngine(self.job, self.node.world.size)
            flat.join(plan, self.node.comm)
            flat.load(whole)
            self.engine = self._flat = flat
        else:
            if self._flat is not None:
                self._flat.close()
                self._flat = None
            self.engine = make_engine(self.job, plan, self.node.comm)
            self.engine.load(whole)
        if plan.mirrors:
            self.engine.begin_mirror(self._mirror, self.tick)
        self._whole, self._plan = None, plan
        if self.node.controller and self.tick:
            self.node.event("re-sharded", tick=self.tick, plan=str(plan.grid), cost_s=time.perf_counter() - begun_s)

    def _load_base(self, spec: TrainingSpec) -> None:
        """Put the net that another run trained under the adapters.

        Raises:
            DataError: No such run, or it trained another net, or wrote no checkpoint.
        """
        wanted = BASES[spec.workload]
        base = RunDir(self.node.run.path.parent / spec.base_run)
        try:
            trained = base.read_manifest()["spec"].get("workload")
            kept = checkpoint.load(base)
        except LabError as error:
            raise DataError(f"base_run: {error}") from error
        if trained != wanted or kept is None:
            why = "it wrote no checkpoint" if trained == wanted else f"it trained {trained}"
            raise DataError(f"base_run: got {spec.base_run}, but {why}; use the id of a run that trained {wanted}")
        layout = Layout.of(nets.net_of(catalog.facts(wanted)).whole(seed=0))
        vector = torch.from_numpy(kept[1]["parameters"])
        load_base(self.work.module, {name: view.numpy() for name, view in layout.views(vector)})

    def _flat_whole(self) -> Whole:
        assert self._flat is not None
        return self._flat.whole()

    def _empty(self) -> Whole:
        return self.job.layout.empty(self.job.optimizer.state_names, self.job.dtype)

    def _index(self) -> Tensor:
        """Return the places of the tick's global batch in the training data; the same however many share it."""
        count, batch = len(self.job.train[0]), self.spec.global_batch
        epoch, place = divmod(self.tick, self._steps_per_epoch())
        if epoch != self._epoch or self._order is None:
            generator = torch.Generator().manual_seed(self.spec.seed * 1_000_003 + epoch)
            self._order, self._epoch = torch.randperm(count, generator=generator).to(self.device), epoch
        return self._order[place * batch : (place + 1) * batch]

    def _steps_per_epoch(self) -> int:
        """Whole batches in the training data; what is left over gets its turn in another epoch's order."""
        return max(1, len(self.job.train[0]) // self.spec.global_batch)

    def _record(self, done: Done) -> None:
        """Write a traced step, in seconds since the first rank began it."""
        self._traced_at = self.tick + self.spec.trace_every
        begun = np.array([min((o[2] for o in done.operations), default=math.inf)])  # torch's engines tell none
        self.node.comm.Allreduce(MPI.IN_PLACE, begun, MPI.MIN)
        for kind, microbatch, start_s, end_s in done.operations:
            row = (self.tick, self.node.rank, kind, microbatch, start_s - begun[0], end_s - begun[0])
            self.node.record("operations", self.node.segment, row)

    def _all_of(self, mine: Tensor | None) -> Tensor:
        """Return the numbers of all ranks, one after the other."""
        comm: Any = self.node.comm
        numbers = np.empty(0) if mine is None else mine.double().cpu().numpy()
        sizes = np.empty(comm.size, np.int64)
        comm.Allgather(np.array([numbers.size], np.int64), sizes)
        everyone = np.empty(int(sizes.sum()))
        comm.Allgatherv(numbers, [everyone, sizes.tolist()])
        return torch.from_numpy(everyone)


def _device(asked: str, node: Node) -> torch.device:
    """Choose this rank's device: GPUs are dealt out in turn; several ranks may share one.

    Raises:
        LabError: A GPU was asked for and there is none.
    """
    count = torch.cuda.device_count() if asked != "cpu" else 0
    if asked == "cuda" and not count:
        raise LabError("device: got 'cuda', but torch sees no GPU here; use device=cpu, or see: aiinfra doctor")
    return torch.device("cuda", node.id % count) if count else torch.device("cpu")
