"""What a step time means as rates: samples, tokens, arithmetic."""

from __future__ import annotations

from ...quantities import Value
from ...workloads import catalog
from .spec import TrainingSpec


def rates(spec: TrainingSpec, step: Value) -> dict[str, Value]:
    """Return rates of a measured step time that is not 0.

    Args:
        spec: Batch and net.
        step: step_time_s.
    """
    facts = catalog.facts(spec.workload).sized(spec.width, spec.depth)
    flop = float(facts.flop_per_sample) * spec.global_batch
    found = {
        "samples_per_s": _rate("samples_per_s", spec.global_batch, step, "batch over step time"),
        "flop_per_step": Value(
            "flop_per_step", flop, method="modelled", how="matrix arithmetic of the layers, counted"
        ),
        "achieved_flops": _rate(
            "achieved_flops", flop, step, "counted arithmetic over step time, without recomputation"
        ),
    }
    if facts.task == "language":
        tokens = spec.global_batch * facts.sample_shape[0]
        found["tokens_per_s"] = _rate("tokens_per_s", tokens, step, "tokens of the batch over step time")
    return found


def _rate(name: str, work: float, step: Value, how: str) -> Value:
    low, high = (work / s if s else None for s in (step.high, step.low))
    return Value(name, work / step.value, low, high, "measured", how, step.n)
