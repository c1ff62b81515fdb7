"""The time of one training step as parts that add up, with blocking or with overlapped communication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._check import Number, need, need_fraction


@dataclass(frozen=True, slots=True)
class StepParts:
    """One step of one rank (the mean rank), in seconds; each an array where a sweep was asked.

    Attributes:
        data_time_s: Fetching the batch.
        compute_time_s: Arithmetic, including what overlapped communication slows it down by.
        exposed_comm_time_s: Communication that no arithmetic hides.
        straggler_wait_time_s: Waiting for the slowest rank.
        bubble_time_s: Idle time of a pipeline stage.
        injected_time_s: Delay added on purpose.
        comm_time_s: All communication, hidden or not; not a part, so it is not in the sum.
    """

    data_time_s: Number
    compute_time_s: Number
    exposed_comm_time_s: Number
    straggler_wait_time_s: Number
    bubble_time_s: Number
    injected_time_s: Number
    comm_time_s: Number

    @property
    def step_time_s(self) -> Number:
        """The sum of the parts."""
        return (
            self.data_time_s
            + self.compute_time_s
            + self.exposed_comm_time_s
            + self.straggler_wait_time_s
            + self.bubble_time_s
            + self.injected_time_s
        )

    @property
    def hidden_comm_time_s(self) -> Number:
        """Communication that arithmetic hides."""
        return self.comm_time_s - self.exposed_comm_time_s


def blocking_step(
    compute_time_s: Number,
    comm_time_s: Number,
    data_time_s: Number = 0.0,
    straggler_wait_time_s: Number = 0.0,
    bubble_time_s: Number = 0.0,
    injected_time_s: Number = 0.0,
) -> StepParts:
    """Return the parts of a step whose communication begins when all arithmetic is done.

    Args:
        compute_time_s: Forward, backward and update of the mean rank.
        comm_time_s: The whole exchange of gradients.
        data_time_s, straggler_wait_time_s, bubble_time_s, injected_time_s: The other parts, 0 where there are none.

    Raises:
        ModelInputError: A negative time.

    Valid when: nothing overlaps; the wait is the mean rank's (`straggler_wait_time_s`).
    Off by: too high where the data of the next batch is fetched meanwhile.
    Source: the sum of its parts.
    """
    _need_times(data_time_s, compute_time_s, comm_time_s, straggler_wait_time_s, bubble_time_s, injected_time_s)
    return StepParts(
        data_time_s,
        compute_time_s,
        comm_time_s,
        straggler_wait_time_s,
        bubble_time_s,
        injected_time_s,
        comm_time_s,
    )


def overlapped_step(
    compute_time_s: Number,
    comm_time_s: Number,
    num_buckets: Number,
    compute_rate_frac: Number = 1.0,
    backward_frac: Number = 2 / 3,
    data_time_s: Number = 0.0,
    straggler_wait_time_s: Number = 0.0,
    bubble_time_s: Number = 0.0,
    injected_time_s: Number = 0.0,
) -> StepParts:
    """Return the parts of a step that sends each bucket of gradients while the backward pass makes the next one.

    With backward time b, communication c in m equal buckets, and arithmetic at rate r while a message is under way:
    the last bucket is done at max(b + c (1-r) (m-1)/m + c/m, b/m + c) after the backward pass began - the first where
    arithmetic is the longer, the second where communication is. What exceeds the (stretched) backward pass is exposed.
    r = 1 is a network card that needs no core; r = 0 is a core that does one or the other, and then overlap gains
    nothing: the sum is that of `blocking_step`.

    Args:
        compute_time_s: Forward, backward and update, undisturbed.
        comm_time_s: All buckets, as measured for this kind of call (non-blocking calls may cost more than blocking).
        num_buckets: m, at least 1; 1 means no overlap.
        compute_rate_frac: r, between 0 and 1, from calibration.
        backward_frac: Share of the arithmetic that makes gradients.
        data_time_s, straggler_wait_time_s, bubble_time_s, injected_time_s: The other parts.

    Raises:
        ModelInputError: A negative time, a fraction outside 0 to 1, or no bucket.

    Valid when: buckets of equal size and equal work, sent one after another in order.
    Off by: too low where the first buckets come late (large last layers) or progress needs calls into the library.
    Source: the schedule of PyTorch DDP, Li et al. 2020 (VLDB 13-12); closed form and slow-down derived here.
    """
    need("num_buckets", num_buckets, 1, whole=True, hint="1 bucket means no overlap")
    need_fraction("compute_rate_frac", compute_rate_frac)
    need_fraction("backward_frac", backward_frac)
    _need_times(data_time_s, compute_time_s, comm_time_s, straggler_wait_time_s, bubble_time_s, injected_time_s)
    backward = compute_time_s * backward_frac
    later = (num_buckets - 1) / num_buckets  # share of either that can run beside the other
    # Arithmetic is slowed for as long as messages are under way, at most until it is done (b/r of wall time).
    lasting = np.minimum(comm_time_s, backward / np.maximum(compute_rate_frac, 1e-12))
    stretched = backward + lasting * (later * (1 - compute_rate_frac))
    done = np.maximum(
        backward + comm_time_s * (later * (1 - compute_rate_frac) + 1 / num_buckets),
        backward / num_buckets + comm_time_s,
    )
    return StepParts(
        data_time_s,
        compute_time_s - backward + stretched,
        done - stretched,
        straggler_wait_time_s,
        bubble_time_s,
        injected_time_s,
        comm_time_s,
    )


def bucket_bounds(sizes: Sequence[int], bucket_size: int) -> list[tuple[int, int]]:
    """Return which tensors go into which bucket, as (first, last + 1), in the order in which gradients become ready.

    Args:
        sizes: Numbers in each tensor, in that order.
        bucket_size: A bucket is closed by the tensor that makes it at least this large.

    Raises:
        ModelInputError: A bucket size that is not positive.

    Valid when: any sizes. Off by: exact by definition. Source: the bucketing of PyTorch DDP, Li et al. 2020.
    """
    need("bucket_size", bucket_size, above=True)
    bounds, first, filled = [], 0, 0
    for i, size in enumerate(sizes):
        filled += size
        if filled >= bucket_size:
            bounds.append((first, i + 1))
            first, filled = i + 1, 0
    if filled:
        bounds.append((first, len(sizes)))
    return bounds


def _need_times(data: Number, compute: Number, comm: Number, wait: Number, bubble: Number, injected: Number) -> None:
    need("data_time_s", data)
    need("compute_time_s", compute)
    need("comm_time_s", comm)
    need("straggler_wait_time_s", wait)
    need("bubble_time_s", bubble)
    need("injected_time_s", injected)
