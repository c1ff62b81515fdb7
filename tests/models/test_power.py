import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.power import (
    BOUNDS,
    POWER_PARAMETERS,
    PowerParameters,
    ac_power_w,
    clock_at_power_frac,
    device_power_w,
    dynamic_power_frac,
    energy_per_token_j,
    facility_power_w,
    lowest_energy_limit_w,
    node_dc_power_w,
    run_under_limit,
    streaming_power_w,
)

times = st.floats(0, 1e6)
shares = st.floats(0, 1)
limits = st.floats(60, 400)


@pytest.mark.parametrize(
    ("clock", "floor", "want"),
    [
        pytest.param(1.0, 0.5, 1.0, id="full-clock-is-all"),
        pytest.param(0.8, 0.5, 0.512, id="above-the-floor-cubic"),
        pytest.param(0.5, 0.5, 0.125, id="at-the-floor"),
        pytest.param(0.25, 0.5, 0.0625, id="below-it-linear"),
        pytest.param(0.0, 0.5, 0.0, id="stopped"),
    ],
)
def test_dynamic_power_hand_computed(clock, floor, want):
    assert dynamic_power_frac(clock, floor) == pytest.approx(want)


@given(st.floats(0, 1), st.floats(0.05, 1))
def test_the_clock_recovers_the_power(power, floor):
    assert dynamic_power_frac(clock_at_power_frac(power, floor), floor) == pytest.approx(power, abs=1e-12)


def test_half_the_dynamic_power_by_hand():
    """Idle 100 W, rated 300 W, matrix work asks for all of it. At 200 W half the dynamic power is left.

    The floor is 0.9: half is below 0.9^3, so the clock is 0.5 / 0.81 and 10 s become 16.2 s at 200 W.
    """
    p = PowerParameters(1.0, 0.5, 0.2, 0.0, 0.9)
    run = run_under_limit(10, 0, 0, 0, 100, 300, 200, p)
    assert run.time_s == pytest.approx(16.2)
    assert run.power_avg_w == pytest.approx(200)
    assert run.energy_j == pytest.approx(3240)
    assert run.clock_frac == pytest.approx(0.5 / 0.81)


def test_kinds_of_work_by_hand():
    """Idle 100 W, rated 300 W; shares 0.5, 0.2, 0.2 and 0.1 of waiting; demands 1, 0.5 and 0.2 of the 200 W above idle."""
    p = PowerParameters(1.0, 0.5, 0.2, 0.0, 0.9)
    assert device_power_w(100, 300, 0.5, 0.2, 0.2, p) == pytest.approx(100 + 100 + 20 + 8)
    run = run_under_limit(5, 2, 2, 1, 100, 300, 300, p)
    assert (run.time_s, run.power_avg_w) == (pytest.approx(10), pytest.approx(228))


@given(shares, shares)
def test_streaming_adds_arithmetic_up_to_the_rated_power(a, b):
    low, high = sorted((a, b))
    assert streaming_power_w(70, 700, low) <= streaming_power_w(70, 700, high) <= 700 + 1e-9
    assert streaming_power_w(70, 700, 0.0) == pytest.approx(device_power_w(70, 700, 0, 1))


@given(times, times, times, times, limits, limits)
def test_a_lower_limit_never_makes_it_faster_nor_draws_more(matrix, memory, comm, wait, one, other):
    low, high = sorted((one, other))
    if matrix + memory + comm + wait < 1e-3:
        return
    a = run_under_limit(matrix, memory, comm, wait, 40, 400, low)
    b = run_under_limit(matrix, memory, comm, wait, 40, 400, high)
    assert a.time_s >= b.time_s * (1 - 1e-9)
    assert a.power_avg_w <= b.power_avg_w * (1 + 1e-9)


@given(times, times, times, times, limits)
def test_power_lies_between_idle_and_the_limit_and_energy_is_power_times_time(matrix, memory, comm, wait, limit):
    if matrix + memory + comm + wait < 1e-3:
        return
    run = run_under_limit(matrix, memory, comm, wait, 40, 400, limit)
    assert 40 * (1 - 1e-9) <= run.power_avg_w <= limit * (1 + 1e-9)
    assert run.energy_j == pytest.approx(run.power_avg_w * run.time_s)
    assert run.time_s >= (matrix + memory + comm + wait) * (1 - 1e-9)


@given(shares, shares, shares)
def test_more_work_draws_more_and_nothing_draws_idle(a, b, c):
    total = max(a + b + c, 1.0)
    a, b, c = a / total, b / total, c / total
    power = device_power_w(70, 700, a, b, c)
    assert 70 - 1e-9 <= power <= 700 + 1e-9
    assert device_power_w(70, 700, a, b, 0) <= power + 1e-9
    assert device_power_w(70, 700, 0, 0, 0) == 70


def test_waiting_ignores_the_limit():
    run = run_under_limit(0, 0, 0, 7.0, 32, 250, np.array([100.0, 250.0]))
    assert run.time_s == pytest.approx([7, 7])
    assert run.power_avg_w == pytest.approx(32)


def test_one_call_sweeps_limits():
    limits = np.linspace(100, 250, 61)
    runs = run_under_limit(0.75, 0.2, 0, 0.05, 32, 250, limits)
    assert runs.time_s.shape == limits.shape
    assert (np.diff(runs.time_s) <= 0).all()


# You et al. 2023 (NSDI, Zeus): traces of ResNet-50, batch 128, on a V100 with limits of 100 to 250 W. The least energy
# for an epoch lies between: at 150 W it takes 617 kJ, at 100 W 679 kJ and at 250 W 802 kJ.
def test_the_cheapest_limit_lies_inside_as_published():
    limits = np.arange(100.0, 251.0, 25.0)
    best = lowest_energy_limit_w(limits, run_under_limit(0.73, 0.23, 0, 0.04, 32, 250, limits))
    assert best in {125.0, 150.0}


def test_published_shape_of_time_and_power():
    """The same traces: time over that at 250 W, and mean power. Within 4 %; the shares are those of the fit."""
    limits = np.arange(100.0, 251.0, 25.0)
    run = run_under_limit(0.73, 0.23, 0, 0.04, 32, 250, limits)
    assert run.time_s / run.time_s[-1] == pytest.approx(
        np.array([6824.417, 5158.947, 4243.257, 3945.803, 3799.44, 3684.553, 3603.597]) / 3603.597, rel=0.04
    )
    assert run.power_avg_w == pytest.approx([99.5, 122.72, 145.46, 165.31, 184.31, 205.62, 222.44], rel=0.04)


def test_a_node_by_hand():
    """8 devices of 600 W, a host of 1000 W, 8 cards of 25 W, fans of 10 %: 6600 W; 96 % supplies: 6875 W; PUE 1.2: 8250 W."""
    dc = node_dc_power_w(8, 600, 1000, 8, 25, 0.1)
    assert dc == pytest.approx(6600)
    assert ac_power_w(dc, 0.96) == pytest.approx(6875)
    assert facility_power_w(ac_power_w(dc, 0.96), 1.2) == pytest.approx(8250)


@given(st.floats(1, 1e6), st.floats(0.5, 1), st.floats(1, 3))
def test_every_stage_costs_something(dc, efficiency, pue):
    assert dc <= ac_power_w(dc, efficiency) <= facility_power_w(ac_power_w(dc, efficiency), pue)


def test_energy_of_a_token():
    assert energy_per_token_j(600, 8000) == pytest.approx(0.075)


# ML.ENERGY leaderboard v3, Qwen3-8B on one H100: 961.71 tokens/s and 0.44402 J a token at 8 sequences. Decoding few
# sequences streams weights and computes next to nothing: the device's memory phase alone, within 10 %. With 384 sequences
# 8257.54 tokens/s and 0.07528 J: the arithmetic of 8e9 parameters, prompts included, comes on top.
def test_streaming_weights_as_published():
    assert energy_per_token_j(device_power_w(70, 700, 0, 1), 961.71) == pytest.approx(0.44402, rel=0.1)
    arithmetic = 8257.54 * 2 * 8e9 * 1.3 / 795e12
    power = streaming_power_w(70, 700, arithmetic)
    assert energy_per_token_j(power, 8257.54) == pytest.approx(0.07528, rel=0.1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: run_under_limit(1, 0, 0, 0, 40, 250, 30), "below its idle power"),
        (lambda: run_under_limit(0, 0, 0, 0, 40, 250, 200), "at least one kind"),
        (lambda: run_under_limit(-1, 0, 0, 0, 40, 250, 200), "matrix_time_s"),
        (lambda: device_power_w(400, 250, 0.5, 0.5), "rated power"),
        (lambda: device_power_w(40, 250, 0.8, 0.8), "what is left of 1"),
        (lambda: ac_power_w(100, 0), "0.96"),
        (lambda: facility_power_w(100, 0.9), "at least what its computers use"),
        (lambda: energy_per_token_j(100, 0), "tokens_per_s"),
        (lambda: node_dc_power_w(0, 1, 1, 1, 1, 0), "num_accelerators"),
        (lambda: lowest_energy_limit_w([1.0, 2.0], run_under_limit(1, 0, 0, 0, 40, 250, 200.0)), "one energy"),
        (lambda: PowerParameters(5, 0.5, 0.2, 0, 0.9), "matrix_frac"),
    ],
)
def test_outside_the_domain_is_refused(call, text):
    with pytest.raises(ModelInputError, match=text):
        call()


def test_the_shipped_parameters_lie_inside_their_bounds_not_on_them():
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(POWER_PARAMETERS, name) < high, name


def test_dimensions(u):
    run = run_under_limit(1 * u.s, 1 * u.s, 1 * u.s, 1 * u.s, 40 * u.W, 250 * u.W, 0.2 * u.kW)
    assert run.time_s.check("[time]")
    assert run.power_avg_w.check("[power]")
    assert run.energy_j.check("[energy]")
    assert device_power_w(40 * u.W, 250 * u.W, 0.5, 0.2).check("[power]")
    node = node_dc_power_w(8, 600 * u.W, 1 * u.kW, 8, 25 * u.W, 0.1)
    assert facility_power_w(ac_power_w(node, 0.96), 1.1).to("W").magnitude == pytest.approx(6600 / 0.96 * 1.1)
    assert energy_per_token_j(600 * u.W, 10 / u.s).check("[energy]")
