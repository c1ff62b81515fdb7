"""The last training run of this machine as a starting point: its newest settled segment, and what the fields make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import LabError, ModelInputError
from ..models.transformer.cluster import Cluster
from ..planning import hardware
from ..planning.scale import ScaleAnswer
from ..planning.scale_run import MeasuredStep, scale_run
from ..runs.home import runs_folder
from ..runs.reader import RunReader, Segment
from ..texts import N_
from ..workloads import catalog as workloads
from .scale_out_fields import ScaleOutFields, conditions

EXPERIMENT = "training"


def answer_of_run(f: ScaleOutFields, counts: Any) -> tuple[ScaleAnswer, Mapping[str, str]]:
    """Return the last training run on each number of nodes like its own, and what was assumed.

    Args:
        f: The fabric of its machine, batch, number of samples, conditions.
        counts: Whole numbers.

    Raises:
        ModelInputError: There is no training run with a settled segment.
    """
    step, global_batch = last_step()
    fabric: Cluster = hardware.cluster(f.node, f.precision)
    asked = conditions(f)
    answer = scale_run(
        step, fabric.fabric_bandwidth_oneway_bytes_per_s, fabric.fabric_latency_s, counts,
        global_batch=global_batch, samples=f.tokens, conditions=asked, scaling=f.scaling,  # type: ignore[arg-type]
    )  # fmt: skip
    return answer, {N_("Nodes"): N_(f"like those of {step.where}, on the fabric of {f.node}"), **asked.sources}


def last_step() -> tuple[MeasuredStep, int]:
    """Return the newest settled segment of the newest training run, as one step; and its global batch.

    Raises:
        ModelInputError: There is none.
    """
    for folder in _newest():
        try:
            reader = RunReader(folder)
            reader.poll()
            settled = [s for s in reader.segments() if not s.transient and s.values.get("compute_time_s")]
        except LabError:
            continue
        if settled:
            newest: Any = settled[-1].spec
            return _step(reader, settled[-1]), newest.global_batch
    raise ModelInputError("no training run with a settled segment on this machine; run lab 1 first, or choose a model")


def _newest() -> list[Any]:
    home = runs_folder()
    return sorted(home.glob(f"*-{EXPERIMENT}-*"), key=lambda p: p.name, reverse=True) if home.is_dir() else []


def _step(reader: RunReader, segment: Segment) -> MeasuredStep:
    number = {k: float(v.value) for k, v in segment.values.items() if v.value is not None}
    spec: Any = segment.spec
    facts = workloads.facts(spec.workload).sized(spec.width, spec.depth)
    return MeasuredStep(
        compute_time_s=number["compute_time_s"],
        data_time_s=number.get("data_time_s", 0.0),
        runtime_time_s=number.get("runtime_time_s", 0.0),
        samples_per_node=spec.global_batch / spec.nodes,
        gradient_bytes=float(facts.gradient_bytes),
        where=f"{spec.workload} in {reader.run.id}",
    )
