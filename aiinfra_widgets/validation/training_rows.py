"""Rows of training steps: what a row says, as shape, plan and machine; all rows predicted in one vectorised call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CatalogError, LabError, UnknownNameError
from ..models.transformer import Accelerator, Cluster, Parameters, Plan, Transformer, check_plan, predict_step
from ..models.transformer.communication import layer_traffic
from ..models.transformer.compute import layer_time
from ..models.transformer.work import step_flop
from ..planning import architectures, hardware
from .metrics import LAYER_METRICS, STEP_METRICS, Published, finite, iteration_time_s
from .rows import Row
from .stacks import ONE_RAIL, stack_of

METRICS = (*STEP_METRICS, *LAYER_METRICS)
#: The unit that a metric's name promises; a value in another one would be off by its factor, unseen.
UNITS = {
    "iter_time_s": ("s",),
    "tokens_per_s_per_accel": ("tokens/s",),
    "samples_per_s_total": ("samples/s", "sequences/s", "images/s"),
    "hw_tflops_per_accel": ("TFLOP/s",),
    "model_tflops_per_accel": ("TFLOP/s",),
    "mfu_pct": ("%",),
    "hfu_pct": ("%",),
    "layer_fwd_ms": ("ms",),
    "layer_bwd_ms": ("ms",),
}
#: Of which the sequences are padded or binned, so that `seq` is only their greatest length.
UNEVEN = ("BERT-Large", "BERT-Base")


class UnexpressedError(LabError, ValueError):
    """A row that the models cannot take; its text is the reason that is printed."""


@dataclass(frozen=True, slots=True)
class Job:
    """A row in the models' words, and the iteration time that it published, in seconds."""

    row: Row
    model: Transformer
    plan: Plan
    cluster: Cluster
    published: Published
    time_s: float


def express(row: Row, extra: Iterable[Path | str] = ()) -> Job:
    """Return what a row of a training step says.

    Raises:
        UnexpressedError: Something that a prediction needs was not published, is not known, or contradicts itself.
    """
    metric = row["metric"]
    if metric not in METRICS:
        raise UnexpressedError(f"{row.where}: {metric} is no metric of a training step")
    if row["unit"].split()[0] not in UNITS[metric]:
        raise UnexpressedError(f"{row.where}: {metric} is given in {row['unit']!r}; write it in {UNITS[metric][0]}")
    if row.value == 0:
        raise UnexpressedError(f"{row.where}: {row['value']} {row['unit']} is no usable {metric}")
    model, plan, cluster = express_plan(row, extra)
    peak = cluster.accelerator.peak_flops
    own = (None, None) if _plain(model) else tuple(map(float, step_flop(model, plan)))
    published = Published(
        float(plan.global_batch_size), model.seq_len, model.layers, model.hidden, model.vocab,
        float(row.number("n_accel") or 0), peak, str(plan.recompute), *own,
    )  # fmt: skip
    return Job(row, model, plan, cluster, published, iteration_time_s(metric, row.value, published))


def express_plan(row: Row, extra: Iterable[Path | str] = ()) -> tuple[Transformer, Plan, Cluster]:
    """Return shape, plan and machine of a row, whatever it measured.

    Raises:
        UnexpressedError: Something that a prediction needs was not published, is not known, or contradicts itself.
    """
    extra = tuple(extra)
    try:
        return _express_plan(row, extra)
    except (CatalogError, UnknownNameError, ValueError) as error:
        if isinstance(error, UnexpressedError):
            raise
        raise UnexpressedError(f"{row.where}: {error}") from error


def _express_plan(row: Row, extra: tuple[Path | str, ...]) -> tuple[Transformer, Plan, Cluster]:
    if row["model"] in UNEVEN:
        raise UnexpressedError(f"{row.where}: its sequences are of many lengths, and their mean was not published")
    if "lora" in row["model"].casefold():
        raise UnexpressedError(
            f"{row.where}: LoRA trains adapters beside frozen weights; these models predict training of all weights"
        )
    needed = ("n_accel", "global_batch", "micro_batch")
    missing = [c for c in needed if row.number(c) is None] + [c for c in ("precision", "accelerator") if not row[c]]
    if missing:
        raise UnexpressedError(f"{row.where}: {', '.join(missing)} was not published")
    precision = hardware.precision_key(row["precision"])
    cluster = hardware.cluster_for(row["accelerator"], precision, row["source"], extra)
    model = _model(row, extra)
    plan = _plan(row, precision, cluster)
    check_plan(model, plan)
    return model, plan, cluster


def _plain(model: Transformer) -> bool:
    """Return whether it is of the shape for which the publications' formula counts."""
    whole = model.kv_heads == model.heads and model.head_size * model.heads == model.hidden
    return bool(whole and model.ffn == 4 * model.hidden and not model.gated and model.experts == 1)


def _model(row: Row, extra: tuple[Path | str, ...]) -> Transformer:
    """The catalog's architecture of that name, with the shape that the row itself prints; or the row's shape alone."""
    seq = row.number("seq")
    name = row["model"].split(" (")[0]
    try:
        known = architectures.transformer(name, int(seq or 1), extra)
    except UnknownNameError:
        known = None
    shape = {c: row.number(c) for c in ("layers", "hidden", "heads", "vocab")}
    if row["metric"] in LAYER_METRICS:
        shape["vocab"] = shape["vocab"] or 1  # one layer has no vocabulary
    if known is not None:
        shape = {c: v if v is not None else getattr(known, c) for c, v in shape.items()}
    missing = [c for c, v in {**shape, "seq": seq}.items() if v is None]
    if missing:
        raise UnexpressedError(
            f"{row.where}: {', '.join(missing)} of {name!r} was not published, and the catalog lacks it"
        )
    if known is None or any(shape[c] != getattr(known, c) for c in ("hidden", "heads")):
        return Transformer(seq_len=seq, **shape)
    kept = ("kv_heads", "head_size", "ffn", "gated", "experts", "active_experts", "tied", "positions")
    return Transformer(seq_len=seq, **shape, **{k: getattr(known, k) for k in kept})


def _plan(row: Row, precision: str, cluster: Cluster) -> Plan:
    newer = bool(cluster.accelerator.is_newer)
    world = row.number("n_accel") or 1
    tp, pp, cp, ep, vpp = (row.number(c) or 1 for c in ("tp", "pp", "cp", "ep", "vpp"))
    dp = row.number("dp") or world / (tp * pp * cp)
    if dp != int(dp):
        raise UnexpressedError(
            f"{row.where}: tp {tp:g} x pp {pp:g} x cp {cp:g} does not divide the {world:g} accelerators of n_accel"
        )
    if dp * tp * pp * cp != world:
        raise UnexpressedError(
            f"{row.where}: dp {dp:g} x tp {tp:g} x pp {pp:g} x cp {cp:g} is {dp * tp * pp * cp:g}, not the {world:g} of n_accel"
        )
    stack = stack_of(row["source"], newer)
    shared: dict[str, Any] = dict(stack.plan)
    if newer and shared.get("flash_attention") and "attention_kernel" not in shared:
        shared["attention_kernel"] = "flash_ported"
    if "compile" in row["notes"]:
        shared["compiled"] = True
    zero = row.number("zero_stage")
    if zero is None:
        zero = shared.get("zero_stage", 0)
    shared["zero_stage"] = zero
    if stack.name == "xla-tpu":
        shared["shard_size"] = cluster.per_node
    if zero == 3 and any(word in row["source"] for word in ONE_RAIL):
        shared["multi_rail"] = False
    recompute = row["recompute"] or "none"
    shared["sequence_parallel"] = tp > 1 and (shared.get("sequence_parallel", False) or "SP" in recompute)
    return Plan(
        dp_size=dp, tp_size=tp, pp_size=pp, cp_size=cp, ep_size=ep,
        micro_batch_size=row.number("micro_batch"), global_batch_size=row.number("global_batch"),
        interleave=vpp, schedule="interleaved" if vpp > 1 else "1f1b",
        recompute=recompute.split("+")[0], precision=precision, **shared,
    )  # fmt: skip


def _stack(objects: Sequence[Any], kind: type[Any]) -> Any:
    """Return one object whose fields are arrays of the fields of many."""
    nested = {"accelerator": Accelerator}
    found: dict[str, Any] = {}
    for f in fields(kind):
        values = [getattr(o, f.name) for o in objects]
        found[f.name] = _stack(values, nested[f.name]) if f.name in nested else np.array(values)
    return kind(**found)


def predict_times_s(jobs: Sequence[Job], parameters: Parameters) -> np.ndarray:
    """Return the predicted iteration time of every job, or of one layer where that was published, in seconds."""
    return Batch(jobs).predict(parameters)


class Batch:
    """Many jobs as arrays, so that fitting calls the model once per trial."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.model: Transformer = _stack([j.model for j in jobs], Transformer)
        self.plan: Plan = _stack([j.plan for j in jobs], Plan)
        self.cluster: Cluster = _stack([j.cluster for j in jobs], Cluster)
        metrics = np.array([j.row["metric"] for j in jobs])
        self.forward, self.backward = metrics == LAYER_METRICS[0], metrics == LAYER_METRICS[1]
        self.time_s = np.array([j.time_s for j in jobs])

    def predict(self, parameters: Parameters) -> np.ndarray:
        """Return the predicted times, in seconds."""
        whole = np.asarray(predict_step(self.model, self.plan, self.cluster, parameters).step_time_s)
        if not (self.forward | self.backward).any():
            return whole
        layer = layer_time(self.model, self.plan, self.cluster.accelerator, parameters)
        traffic = layer_traffic(self.model, self.plan, self.cluster, parameters).tensor_s
        again = np.where(self.plan.is_recompute("selective"), layer.selective_s, 0)
        found: np.ndarray = np.select(
            [self.forward, self.backward], [layer.forward_s + traffic, layer.backward_s + again + traffic], whole
        )
        return found


def expressed(rows: Iterable[Row], extra: Iterable[Path | str] = ()) -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of all rows of training steps that can be expressed, and the reasons of the others by id."""
    jobs, reasons = [], {}
    for row in rows:
        if row["metric"] not in METRICS:
            continue
        try:
            job = express(row, extra)
        except UnexpressedError as error:
            reasons[row["id"]] = str(error)
            continue
        if finite(job.time_s):
            jobs.append(job)
        else:
            reasons[row["id"]] = f"{row.where}: {row['value']} {row['unit']} is no usable {row['metric']}"
    return jobs, reasons
