"""One training job on ever more accelerators: time, failures, money, energy and carbon, each number saying what it is worth.

Two questions that are often confused. *Strong* scaling keeps the batch: more accelerators, each with less to do, until there is
nothing left to hand out. *Weak* scaling gives every replica as much as before, so that the batch grows with the accelerators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from ..errors import ModelInputError, near
from ..models import cost, energy, power, reliability
from ..models._check import Number, need
from ..models.transformer.architecture import Transformer
from ..models.transformer.cluster import Cluster
from ..models.transformer.memory import memory_per_rank
from ..models.transformer.plan import Plan
from ..models.transformer.step import PARTS, predict_step
from ..quantities import Method, Quantity, Value, register

Scaling = Literal["strong", "weak"]
Array = np.ndarray[Any, np.dtype[np.float64]]
DAY_S = 86400.0
EXPOSED = tuple(p for p in PARTS if p.startswith("exposed"))

_HIDDEN = "; the share that no computation hides."
QUANTITIES = (
    Quantity("optimizer_time_s", "Optimiser", "s", "Updating the weights, at the memory's speed.", "lower", part="data"),
    *(
        Quantity(f"exposed_{key}_comm_time_s", f"Exposed: {label}", "s", what + _HIDDEN, "lower", part="communication")
        for key, label, what in (
            ("tp", "tensor parallel", "Sums inside every layer, between the ranks that share its matrices"),
            ("cp", "context parallel", "Keys and values, between the ranks that share a sequence"),
            ("ep", "experts", "Tokens on their way to their experts and back"),
            ("pp", "pipeline", "Activations from stage to stage"),
            ("dp", "data parallel", "Gradients and sharded weights, between the replicas"),
        )
    ),
    Quantity("exposed_comm_frac", "Communication", "frac", "Share of a step that is communication which nothing hides.", "lower"),
    Quantity("bubble_frac", "Bubble", "frac", "Share of a step in which a pipeline stage has nothing to do.", "lower"),
    Quantity("mfu", "Model FLOP utilisation", "frac", "Arithmetic that the model needs, as a share of the peak.", "higher"),
    Quantity("failures_per_day", "Failures per day", "1", "Failures of hardware that stop the job, in a day.", "lower"),
    Quantity("train_time_s", "Time to train", "s", "From the first token to the last, failures included.", "lower"),
    Quantity("facility_energy_j", "Energy", "J", "Of the whole job, cooling included.", "lower"),
    Quantity("embodied_gco2e", "Carbon of manufacture", "gCO2e", "The job's share of making the machines.", "lower"),
)  # fmt: skip
register(QUANTITIES)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a job runs under; nobody measured it here, so each number is assumed, with `sources` to say from where.

    Attributes:
        mtbf_s: Mean time between failures of one accelerator, with its share of node and fabric.
        checkpoint_cost_s: Time that a checkpoint stops the job.
        restart_time_s: From a failure until steps go on, without the steps done again.
        price_usd_per_accelerator_hour: Rent of one accelerator.
        idle_w, rated_w: Power of one accelerator without work, and the most that its maker allows.
        host_w: The share of one accelerator in the rest of its node: processors, network, fans, supplies.
        pue: Energy of the building over energy of the computers, at least 1.
        carbon_intensity_gco2e_per_kwh: Of the grid.
        embodied_gco2e_per_accelerator: Of making one, with its share of the node.
        lifetime_s: Over which that is spread.
        sources: By field: where the number comes from.

    Raises:
        ModelInputError: A price below zero, a PUE below 1, a time that is not positive.
    """

    mtbf_s: Number
    checkpoint_cost_s: Number
    restart_time_s: Number
    price_usd_per_accelerator_hour: Number
    idle_w: Number
    rated_w: Number
    host_w: Number
    pue: Number
    carbon_intensity_gco2e_per_kwh: Number
    embodied_gco2e_per_accelerator: Number
    lifetime_s: Number
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("mtbf_s", "checkpoint_cost_s", "carbon_intensity_gco2e_per_kwh", "lifetime_s"):
            need(name, getattr(self, name), above=True)
        for name in (
            "restart_time_s",
            "price_usd_per_accelerator_hour",
            "idle_w",
            "host_w",
            "embodied_gco2e_per_accelerator",
        ):
            need(name, getattr(self, name))
        need(
            "rated_w - idle_w",
            self.rated_w - self.idle_w,
            above=True,
            hint="rated power lies above idle power; check the catalog",
        )
        need("pue", self.pue, 1, hint="a building uses at least what its computers use")


@dataclass(frozen=True, slots=True)
class ScaleAnswer:
    """What a job would be like on each number of accelerators.

    Attributes:
        accelerators: As asked for; shape (n,).
        used: That have work: whole replicas only; 0 where not even one fits.
        values: By quantity, each an array of shape (n,), NaN where nothing can run. `method` says modelled or assumed.
        least: Accelerators of one replica.
        reasons: By index: why nothing can run there, and what would help.
        notes: Sentences a reader must see beside the numbers.
    """

    accelerators: Array
    used: Array
    values: Mapping[str, Value]
    least: int
    reasons: Mapping[int, str]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Array:
        found: Array = self.values[name].value
        return found

    def at(self, index: int) -> dict[str, float]:
        """Return every number of one count, by quantity."""
        return {name: float(value.value[index]) for name, value in self.values.items()}


def spread(plan: Plan, accelerators: Array, scaling: Scaling) -> tuple[Plan, Array, Array]:
    """Return the plan on each number of accelerators, what of it has work, and the sequences of a step that are real.

    tp, pp and cp stay; the replicas are as many as fit. With a fixed batch that they do not divide, some have one
    micro-batch more, and the step lasts as long as theirs: the plan then holds the batch rounded up.

    Args:
        plan: Degrees and batch. Weak scaling keeps its micro-batches per replica, strong scaling its batch.
        accelerators: How many there are, whole numbers; shape (n,).
        scaling: "strong" or "weak".

    Raises:
        ModelInputError: An unknown kind of scaling, a number of accelerators that is not positive and whole.
    """
    if scaling not in get_args(Scaling):
        raise ModelInputError(f"scaling must be strong or weak, got {scaling!r}; {near(scaling, get_args(Scaling))}")
    need("accelerators", accelerators, 1, whole=True)
    shard = plan.tp_size * plan.pp_size * plan.cp_size
    fit = np.floor(accelerators / shard)
    replicas = np.maximum(fit, 1)
    if scaling == "weak":
        each = np.full_like(replicas, plan.num_microbatches)
        batch = each * replicas * plan.micro_batch_size
    else:
        most = np.ceil(plan.global_batch_size / plan.micro_batch_size)
        replicas = np.minimum(replicas, most)
        each = np.ceil(most / replicas)
        batch = np.full_like(replicas, float(plan.global_batch_size))
    spread_plan = replace(plan, dp_size=replicas, global_batch_size=each * replicas * plan.micro_batch_size)
    return spread_plan, np.where(fit >= 1, replicas * shard, 0.0), batch


def scale_out(
    model: Transformer,
    plan: Plan,
    cluster: Cluster,
    accelerators: Any,
    *,
    tokens: float,
    conditions: Conditions,
    scaling: Scaling = "strong",
) -> ScaleAnswer:
    """Return what training `model` on `tokens` tokens is like on each number of accelerators.

    Args:
        model, plan, cluster: What is trained, how it is spread, and on what; the plan's dp_size is found anew for each count.
        accelerators: Whole numbers; shape (n,).
        tokens: To train on, in all; the same for every count.
        conditions: Failures, prices, power, grid.
        scaling: "strong" keeps the batch, "weak" the work of a replica.

    Raises:
        ModelInputError: tokens or a count that is not positive, a plan that does not suit the model.

    Valid when: all accelerators are equal and healthy between failures; the number of tokens does not depend on the batch.
    Off by: too good for weak scaling beyond the critical batch size, where a larger batch needs more tokens
        (McCandlish et al. 2018); and as the models of the step, of failures and of power are, which see.
    Source: composition of the models that it calls.
    """
    need("tokens", tokens, above=True)
    counts = np.atleast_1d(np.asarray(accelerators, dtype=float))
    spread_plan, used, batch = spread(plan, counts, scaling)
    step = predict_step(model, spread_plan, cluster)
    fits = used > 0
    numbers: dict[str, Any] = {p: getattr(step, p) for p in ("step_time_s", *PARTS)}
    real = batch / spread_plan.global_batch_size  # where the last round of micro-batches is not full, the rest waits
    numbers["exposed_comm_frac"] = sum(numbers[p] for p in EXPOSED) / numbers["step_time_s"]
    numbers["bubble_frac"] = numbers["bubble_time_s"] / numbers["step_time_s"]
    numbers["mfu"] = step.mfu * real
    numbers["tokens_per_s"] = batch * model.seq_len / numbers["step_time_s"]
    shares = (numbers[p] / numbers["step_time_s"] for p in ("compute_time_s", "optimizer_time_s"))
    busy = (*shares, numbers["exposed_comm_frac"])
    numbers |= running(np.maximum(used, 1), tokens / numbers["tokens_per_s"], busy, conditions)
    numbers["gpu_memory_bytes"] = memory_per_rank(model, spread_plan).total_bytes
    values = labelled(numbers, fits)
    shard = int(plan.tp_size * plan.pp_size * plan.cp_size)
    reasons = {int(i): f"one replica needs {shard:,} accelerators (tp x pp x cp)" for i in np.flatnonzero(~fits)}
    return ScaleAnswer(counts, used, values, shard, reasons, tuple(_notes(plan, counts, used, scaling)))


def running(used: Array, useful_time_s: Array, busy: tuple[Number, Number, Number], c: Conditions) -> dict[str, Any]:
    """Return failures, time, money, energy and carbon of a whole job, by quantity.

    Args:
        used: Accelerators at work, at least 1.
        useful_time_s: Of all steps together, without failures and checkpoints.
        busy: Shares of a step in matrix products, in memory traffic, in communication; the rest is waiting.
        c: What it runs under.

    Raises:
        ModelInputError: No accelerator, a negative time, shares beyond 1.

    Valid when: any failure stops the job; checkpoints are written at the best interval; all accelerators are held throughout.
    Off by, source: as the models of failures, power, cost and carbon.
    """
    job_mtbf_s = c.mtbf_s / used
    interval_s = reliability.optimal_interval_s(c.checkpoint_cost_s, job_mtbf_s)
    kept = reliability.goodput(interval_s, c.checkpoint_cost_s, job_mtbf_s, c.restart_time_s)
    train_time_s = useful_time_s / kept.training_goodput_frac
    watts = power.device_power_w(c.idle_w, c.rated_w, *busy) + c.host_w
    energy_j = energy.facility_energy_j(energy.energy_j(watts * used, train_time_s), c.pue)
    return {
        "failures_per_day": DAY_S / job_mtbf_s,
        "training_goodput_frac": kept.training_goodput_frac,
        "train_time_s": train_time_s,
        "cost_usd": cost.rented_cost_usd(used, train_time_s, c.price_usd_per_accelerator_hour),
        "facility_energy_j": energy_j,
        "operational_gco2e": energy.operational_gco2e(energy_j, c.carbon_intensity_gco2e_per_kwh),
        "embodied_gco2e": used * energy.embodied_gco2e(c.embodied_gco2e_per_accelerator, train_time_s, c.lifetime_s),
    }


_STEP: tuple[Method, str] = ("modelled", "model of a training step")
#: What each number is worth, and how it was found.
_METHOD: dict[str, tuple[Method, str]] = {
    **dict.fromkeys(("step_time_s", *PARTS, "exposed_comm_frac", "bubble_frac", "mfu"), _STEP),
    "tokens_per_s": _STEP,
    "gpu_memory_bytes": ("modelled", "model of the fullest rank's memory"),
    "samples_per_s": _STEP,
    "data_time_s": ("measured", "the run's own medians, per sample"),
    "runtime_time_s": ("measured", "the run's own medians"),
    "failures_per_day": ("assumed", "accelerators over an assumed time between failures of one"),
    "training_goodput_frac": ("assumed", "checkpoints at the best interval, from assumed failures"),
    "train_time_s": ("modelled", "tokens over throughput, over goodput"),
    "cost_usd": ("assumed", "time held, at an assumed price"),
    "facility_energy_j": ("modelled", "power from utilisation, times PUE"),
    "operational_gco2e": ("modelled", "energy times a yearly average of the grid"),
    "embodied_gco2e": ("assumed", "an assumed footprint of manufacture, spread over the lifetime"),
}  # fmt: skip


def labelled(numbers: Mapping[str, Any], fits: Any) -> dict[str, Value]:
    """Return each number with what it is worth, NaN where nothing fits.

    Args:
        numbers: By quantity; arrays that broadcast with `fits`.
        fits: Where anything can run; shape (n,).
    """
    return {
        name: Value(name, np.where(fits, value, np.nan), method=_METHOD[name][0], how=_METHOD[name][1])
        for name, value in numbers.items()
    }


def _notes(plan: Plan, counts: Array, used: Array, scaling: Scaling) -> list[str]:
    notes = []
    if scaling == "strong":
        most = (
            float(np.ceil(plan.global_batch_size / plan.micro_batch_size)) * plan.tp_size * plan.pp_size * plan.cp_size
        )
        if np.any(counts > most):
            notes.append(
                f"The batch of {plan.global_batch_size:,} sequences feeds at most {int(most):,} accelerators; the others have no work."
            )
    else:
        notes.append(
            "The batch grows with the accelerators. Beyond a critical size a larger batch needs more tokens; that is not modelled."
        )
    return notes
