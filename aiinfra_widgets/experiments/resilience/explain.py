"""Why measured goodput is not the predicted one, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from ...quantities import Prediction, Value, quantity, show
from ...texts import N_, tr
from .spec import ResilienceSpec
from .vocabulary import SHARES

#: A cost that differs by less is no cause, nor is a share of the time that differs by less.
CLOSE, CLOSE_FRAC = 0.2, 0.02


def explain(spec: ResilienceSpec, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
    """Return where the time went instead, then what was not as assumed: the costs, and how often chance let a node fail."""
    gaps = []
    for name in SHARES[1:]:
        value, expected = measured.get(name), predicted.get(name)
        if value is not None and value.value is not None and expected is not None:
            gaps.append((abs(value.value - expected), name, value.value, expected))
    shares = [
        tr(
            "{part} took {measured} of the time, and {predicted} was predicted.",
            part=quantity(name).label,
            measured=show("frac", share),
            predicted=show("frac", expected),
        )
        for gap, name, share, expected in sorted(gaps, reverse=True)
        if gap > CLOSE_FRAC
    ]
    causes = []
    for name, assumed_s, words in (
        ("checkpoint_cost_s", spec.checkpoint_cost_s, N_("A checkpoint took {measured}, and {assumed} was assumed.")),
        ("restart_time_s", spec.recovery_time_s, N_("A recovery took {measured}, and {assumed} was assumed.")),
        (
            "job_mtbf_s",
            spec.job_mtbf_s,
            N_("By chance the job failed once in {measured}, and once in {assumed} is to be expected."),
        ),
    ):
        value = measured.get(name)
        if value is not None and value.value and abs(value.value / assumed_s - 1) > CLOSE:
            causes.append(
                (
                    abs(value.value / assumed_s - 1),
                    tr(words, measured=show("s", value.value), assumed=show("s", assumed_s)),
                )
            )
    return [*shares[:1], *(text for _, text in sorted(causes, reverse=True)), *shares[1:]]
