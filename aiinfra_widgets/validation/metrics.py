"""From what was published to the time of one iteration, and back, so that every row can be compared in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..models.transformer.work import published_hardware_flop, published_model_flop

#: Metrics of one training step; all errors of theirs are on its time.
STEP_METRICS = (
    *("iter_time_s", "tokens_per_s_per_accel", "samples_per_s_total", "hw_tflops_per_accel", "model_tflops_per_accel"),
    *("mfu_pct", "hfu_pct"),
)
LAYER_METRICS = ("layer_fwd_ms", "layer_bwd_ms")


@dataclass(frozen=True, slots=True)
class Published:
    """What a conversion needs: batch B, sequence s, layers l, hidden h, vocabulary V, n accelerators of a peak each.

    `flop` and `hardware` replace the formulas of the publications where the model is of another shape than theirs (gated,
    grouped queries, experts): whoever published such a row counted its own operations.
    """

    batch: float
    seq_len: float
    layers: float
    hidden: float
    vocab: float
    accelerators: float
    peak_flops: float
    recompute: str = "full"
    flop: float | None = None
    hardware: float | None = None

    def model_flop(self) -> float:
        """Operations of one step as publications count them for MFU."""
        if self.flop is not None:
            return self.flop
        return float(published_model_flop(self.batch, self.seq_len, self.layers, self.hidden, self.vocab))

    def hardware_flop(self) -> float:
        """The same with what is computed again: nothing, attention's products (selective) or the whole forward pass."""
        if self.hardware is not None:
            return self.hardware
        if self.recompute == "full":
            return float(published_hardware_flop(self.batch, self.seq_len, self.layers, self.hidden, self.vocab))
        if self.recompute == "selective":
            return self.model_flop() + 12 * self.batch * self.seq_len**2 * self.layers * self.hidden
        return self.model_flop()


def iteration_time_s(metric: str, value: float, p: Published) -> float:
    """Return the iteration time that a published value implies; the same formula turns a time into that metric.

    Args:
        metric: One of STEP_METRICS or LAYER_METRICS (a layer's own time, in seconds).
        value: In the metric's unit (TFLOP/s, %).
        p: The inputs.

    Source: the publications' own definitions; operations as Narayanan et al. 2021, equation 3.
    """
    match metric:
        case "iter_time_s":
            return value
        case "layer_fwd_ms" | "layer_bwd_ms":
            return value / 1e3
        case "tokens_per_s_per_accel":
            return p.batch * p.seq_len / (value * p.accelerators)
        case "samples_per_s_total" | "images_per_s_total":
            return p.batch / value
        case "hw_tflops_per_accel":
            return p.hardware_flop() / (p.accelerators * value * 1e12)
        case "model_tflops_per_accel":
            return p.model_flop() / (p.accelerators * value * 1e12)
        case "mfu_pct":
            return p.model_flop() / (p.accelerators * value / 100 * p.peak_flops)
        case "hfu_pct":
            return p.hardware_flop() / (p.accelerators * value / 100 * p.peak_flops)
    raise ValueError(metric)


def metric_value(metric: str, time_s: float, p: Published) -> float:
    """Return a time as the published metric: every conversion is its own inverse, up to proportion."""
    if metric in ("iter_time_s", *LAYER_METRICS):
        return time_s * (1e3 if metric in LAYER_METRICS else 1)
    return iteration_time_s(metric, 1.0, p) / time_s


def finite(value: float | None) -> bool:
    """Return whether there is a usable number."""
    return value is not None and bool(np.isfinite(value)) and value > 0
