import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import StepParts, blocking_step, overlapped_step

times = st.floats(0, 1e3)
fractions = st.floats(0, 1)


def test_blocking_parts_add_up_by_hand():
    step = blocking_step(10e-3, 4e-3, 1e-3, 2e-3, 0.5e-3, 0.25e-3)
    assert step.step_time_s == pytest.approx(17.75e-3)
    assert step.exposed_comm_time_s == step.comm_time_s == 4e-3
    assert step.hidden_comm_time_s == 0


# Backward pass of 8 in all cases (12 of compute, 2/3 of it), so that forward and update take 4.
@pytest.mark.parametrize(
    ("comm", "buckets", "rate", "exposed", "step"),
    [
        pytest.param(4, 1, 1.0, 4, 16, id="one-bucket-hides-nothing"),
        pytest.param(4, 4, 1.0, 1, 13, id="the-last-of-four-buckets-is-exposed"),
        pytest.param(16, 4, 1.0, 10, 22, id="a-slow-link-is-exposed-beyond-the-backward-pass"),
        pytest.param(4, 4, 0.0, 1, 16, id="a-core-that-does-one-or-the-other-gains-nothing"),
        pytest.param(4, 4, 0.5, 1, 14.5, id="half-rate-stretches-three-hidden-buckets-by-half"),
        pytest.param(0, 4, 0.5, 0, 12, id="nothing-to-send"),
    ],
)
def test_overlap_hand_computed(comm, buckets, rate, exposed, step):
    parts = overlapped_step(12, comm, buckets, rate)
    assert parts.exposed_comm_time_s == pytest.approx(exposed)
    assert parts.step_time_s == pytest.approx(step)


def _simulated(backward, comm, buckets, rate):
    """Bucket by bucket: arithmetic runs at `rate` while a message is under way. Returns (arithmetic done, all done)."""
    now, made, sent = 0.0, 0, 0
    work, message = backward / buckets, comm / buckets
    left_work, left_message = work, 0.0
    arithmetic_done = 0.0
    while sent < buckets:
        sending = made > sent
        if sending and left_message <= 0:
            left_message = message
        speed = 0.0 if made == buckets else rate if sending else 1.0
        to_work = left_work / speed if speed > 0 else math.inf
        to_message = left_message if sending else math.inf
        passed = min(to_work, to_message)
        now += passed
        left_work -= passed * speed if speed else 0.0
        if sending:
            left_message -= passed
        if to_message <= passed * (1 + 1e-12):
            sent, left_message = sent + 1, 0.0
        if to_work <= passed * (1 + 1e-12):
            made, left_work, arithmetic_done = made + 1, work, now
    return arithmetic_done, now


@given(
    st.floats(1e-2, 10),
    st.floats(1e-2, 10),
    st.integers(1, 12),
    st.floats(0.05, 1),
)
def test_overlap_against_a_simulation_of_the_buckets(backward, comm, buckets, rate):
    arithmetic, done = _simulated(backward, comm, buckets, rate)
    parts = overlapped_step(backward, comm, buckets, rate, backward_frac=1.0)
    assert parts.compute_time_s == pytest.approx(arithmetic, rel=1e-6)
    assert parts.step_time_s == pytest.approx(done, rel=1e-6)


@given(times, times, st.integers(1, 64), fractions, fractions, times, times)
def test_parts_always_add_up_and_none_is_negative(compute, comm, buckets, rate, backward, data, wait):
    for step in (
        blocking_step(compute, comm, data, wait),
        overlapped_step(compute, comm, buckets, rate, backward, data, wait),
    ):
        parts = (step.data_time_s, step.compute_time_s, step.exposed_comm_time_s, step.straggler_wait_time_s)
        assert all(part >= 0 for part in parts)
        assert step.step_time_s == pytest.approx(sum(parts))
        assert step.exposed_comm_time_s <= step.comm_time_s * (1 + 1e-9)


@given(times, times, st.integers(1, 64), fractions, fractions)
def test_overlap_lies_between_the_longer_and_the_sum(compute, comm, buckets, rate, backward):
    step = overlapped_step(compute, comm, buckets, rate, backward).step_time_s
    assert step <= (compute + comm) * (1 + 1e-9)
    assert step >= max(compute, comm) * (1 - 1e-9)


@given(times, times, st.integers(1, 64), fractions)
def test_a_core_that_must_move_the_bytes_itself_gains_nothing(compute, comm, buckets, backward):
    step = overlapped_step(compute, comm, buckets, 0.0, backward).step_time_s
    assert step == pytest.approx(blocking_step(compute, comm).step_time_s, abs=1e-9)


@given(times, times, st.integers(1, 32), fractions)
def test_more_buckets_or_a_faster_core_never_hurt(compute, comm, buckets, rate):
    step = overlapped_step(compute, comm, buckets, rate).step_time_s
    assert overlapped_step(compute, comm, 2 * buckets, rate).step_time_s <= step * (1 + 1e-9)
    assert overlapped_step(compute, comm, buckets, min(1, rate + 0.1)).step_time_s <= step * (1 + 1e-9)


def test_dearer_non_blocking_calls_make_overlap_lose_as_was_seen_on_two_cores():
    """64 MB on 2 ranks, measured: 37 ms of arithmetic; 7 ms blocking in pieces, 36 ms as non-blocking pieces."""
    blocking = blocking_step(37e-3, 7e-3).step_time_s
    overlapped = overlapped_step(37e-3, 36e-3, 64, compute_rate_frac=0.5).step_time_s
    assert overlapped > blocking
    assert overlapped_step(37e-3, 7e-3, 64, compute_rate_frac=0.5).step_time_s < blocking  # at equal cost it would win


def test_a_sweep_is_one_call():
    comm, buckets = np.array([1.0, 10, 100])[:, None], np.array([1, 4, 16, 64])
    step = overlapped_step(12.0, comm, buckets, 0.5)
    assert step.step_time_s.shape == (3, 4)
    one = overlapped_step(12.0, 10.0, 16, 0.5)
    assert step.step_time_s[1, 2] == pytest.approx(one.step_time_s)
    assert step.exposed_comm_time_s[1, 2] == pytest.approx(one.exposed_comm_time_s)


@pytest.mark.parametrize("name", ["compute_time_s", "comm_time_s", "data_time_s", "straggler_wait_time_s"])
@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf])
def test_a_time_that_is_none_is_refused_by_name(name, bad):
    good = {"compute_time_s": 1.0, "comm_time_s": 1.0}
    with pytest.raises(ModelInputError, match=name):
        blocking_step(**{**good, name: bad})
    with pytest.raises(ModelInputError, match=name):
        overlapped_step(num_buckets=4, **{**good, name: bad})


@pytest.mark.parametrize(
    ("buckets", "rate", "backward"), [(0, 1, 1), (1.5, 1, 1), (4, 1.1, 1), (4, -0.1, 1), (4, 1, 2)]
)
def test_overlap_refuses_outside_its_domain(buckets, rate, backward):
    with pytest.raises(ModelInputError):
        overlapped_step(1.0, 1.0, buckets, rate, backward)


def test_dimensions(u):
    step = overlapped_step(12 * u.ms, 3000 * u.us, 4, 0.5, data_time_s=0.001 * u.s)
    assert isinstance(step, StepParts)
    assert step.step_time_s.check("[time]")
    plain = overlapped_step(12e-3, 3e-3, 4, 0.5, data_time_s=1e-3)
    assert step.step_time_s.to("s").magnitude == pytest.approx(plain.step_time_s)
    assert blocking_step(12 * u.ms, 3 * u.ms).step_time_s.to("ms").magnitude == pytest.approx(15)
