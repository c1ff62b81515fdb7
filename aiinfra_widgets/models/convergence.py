"""How the time to train changes with batch and devices: convergence by the critical batch, a step by its parts.

A larger batch averages more noise out of the gradient, so fewer steps are needed, but never fewer than a least number;
past the critical batch the samples to see grow with the batch. A step has arithmetic that shrinks with every device,
a floor that does not, and communication.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ._check import Number, need
from .stragglers import normal_max_factor


@dataclass(frozen=True, slots=True)
class Convergence:
    """Samples and steps to a quality, by batch.

    Attributes:
        min_samples: Samples that the smallest batches need, E.
        critical_batch: Batch at which twice as many are needed; infinite where the batch does not matter.

    Raises:
        ModelInputError: A number that is not positive.

    Valid when: hyper-parameters are tuned for each batch. Off by: 10 % between MLPerf's reference points of a benchmark;
        too low past the largest batch with which a benchmark still converges.
    Source: McCandlish et al. 2018 (arXiv:1812.06162), equation 2.11: steps = s_min (1 + B_crit / B), samples = E (1 + B / B_crit).
    """

    min_samples: Number
    critical_batch: Number

    def __post_init__(self) -> None:
        need("min_samples", self.min_samples, above=True)
        need("critical_batch", self.critical_batch, above=True, infinite=True)

    def samples(self, batch: Number) -> Any:
        """Return the samples to see with that global batch, at least 1."""
        need("batch", batch, 1)
        return self.min_samples * (1 + batch / self.critical_batch)

    def steps(self, batch: Number) -> Any:
        """Return the steps to make with that global batch, at least 1."""
        return self.samples(batch) / batch


def fit_convergence(points: Iterable[tuple[float, float]]) -> Convergence:
    """Return the law that fits measured points best in relative error.

    Args:
        points: Pairs of (global batch, samples to the quality); at least two different batches.

    Raises:
        ModelInputError: Fewer than two batches, or a number that is not positive.

    Valid when: as `Convergence`. Off by: as the points scatter; a law that falls with the batch is held level.
    Source: least squares on samples = a + b batch, each point divided by its samples.
    """
    table = np.array(list(points), dtype=float).reshape(-1, 2)
    need("batch and samples", table, above=True)
    batch, samples = table.T
    if len(set(batch)) < 2:
        raise ModelInputError(f"a law needs points at two batches at least, got {len(set(batch))}; give more points")
    least, slope = np.linalg.lstsq(np.stack([1 / samples, batch / samples], axis=1), np.ones(len(batch)), rcond=None)[0]
    if slope <= 0 or least <= 0:
        return Convergence(float(1 / np.mean(1 / samples)), np.inf)
    return Convergence(float(least), float(least / slope))


@dataclass(frozen=True, slots=True)
class ScalingParameters:
    """What a step costs beside its arithmetic.

    Attributes:
        kernel_time_s: Least time of one kernel, however small its share of the batch.
        jitter_frac: Standard deviation of a device's step over its mean.
        hidden_frac: Share of the computation behind which gradients can be reduced (the backward pass).
        contention_frac: By how much communication slows the computation that hides it.
        start_s: Once in a run: opening data, the first steps, the last evaluation.

    Raises:
        ModelInputError: A share outside 0 to 1, a time below zero.

    Source: assumed, none is fitted; the shares are those of `convolution`.
    """

    kernel_time_s: Number = 4e-6
    jitter_frac: Number = 0.005
    hidden_frac: Number = 2 / 3
    contention_frac: Number = 0.1
    start_s: Number = 3.0

    def __post_init__(self) -> None:
        for name in ("kernel_time_s", "jitter_frac", "start_s"):
            need(name, getattr(self, name))
        for name in ("hidden_frac", "contention_frac"):
            need(name, getattr(self, name), 0, 1)


SCALING_PARAMETERS = ScalingParameters()


def strong_scaling_step_s(
    arithmetic_s: Number,
    floor_s: Number,
    hideable_comm_s: Number,
    open_comm_s: Number,
    world_size: Number,
    parameters: ScalingParameters = SCALING_PARAMETERS,
) -> Any:
    """Return the time of one step of a job, in seconds.

    Args:
        arithmetic_s: Of one device: its share of the batch.
        floor_s: Of one device: what stays however small that share is.
        hideable_comm_s: Gradients, reduced while the backward pass goes on.
        open_comm_s: Communication that the next computation waits for (exchange of embeddings).
        world_size: Devices.
        parameters: Jitter, overlap, contention.

    Raises:
        ModelInputError: A time below zero, a world_size that is not whole.

    Valid when: data parallelism, or model parallelism whose communication shrinks with the arithmetic.
    Off by: too low where the input pipeline or evaluation binds. Source: `step.overlapped_step`, `stragglers`.
    """
    for name, value in (
        ("arithmetic_s", arithmetic_s),
        ("floor_s", floor_s),
        ("hideable_comm_s", hideable_comm_s),
        ("open_comm_s", open_comm_s),
    ):
        need(name, value)
    own = arithmetic_s + floor_s
    hidden = np.minimum(hideable_comm_s, parameters.hidden_frac * own)
    exposed = hideable_comm_s - (1 - parameters.contention_frac) * hidden
    return own * (1 + parameters.jitter_frac * normal_max_factor(world_size)) + exposed + open_comm_s


def arithmetic_from_step_s(
    step_time_s: Number,
    floor_s: Number,
    hideable_comm_s: Number,
    open_comm_s: Number,
    world_size: Number,
    parameters: ScalingParameters = SCALING_PARAMETERS,
) -> Any:
    """Return the arithmetic of a measured step, in seconds: the inverse of `strong_scaling_step_s`, 0 at least.

    Arguments, errors, domain, bias and source as there.
    """
    need("step_time_s", step_time_s, above=True)
    left = step_time_s - open_comm_s - hideable_comm_s
    stretch = 1 + parameters.jitter_frac * normal_max_factor(world_size)
    kept = 1 - parameters.contention_frac
    all_hidden = (left + kept * hideable_comm_s) / stretch
    part_hidden = left / (stretch - kept * parameters.hidden_frac)
    own = np.where(hideable_comm_s <= parameters.hidden_frac * all_hidden, all_hidden, part_hidden)
    return np.maximum(own - floor_s, 0.0)[()]
