import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.cost import owned_cost_usd, rented_cost_usd
from aiinfra_widgets.models.ownership import (
    SECONDS_PER_YEAR,
    break_even_utilization_frac,
    owned_node_cost,
    owning_break_even_frac,
    price_per_used_hour_usd,
    reserved_cost_usd,
    spot_break_even_price_usd,
    spot_run,
)

HOUR = 3600.0
prices = st.floats(0.01, 200)


def test_a_reservation_by_hand():
    """2 nodes for a year at 30 USD an hour and 1000 USD each ahead: 2 * 8760 * 30 + 2000."""
    assert reserved_cost_usd(2, SECONDS_PER_YEAR, 30, 1000) == pytest.approx(527_600)


def test_break_even_by_hand():
    assert break_even_utilization_frac(33.0, 55.0) == pytest.approx(0.6)
    assert price_per_used_hour_usd(33.0, 0.6) == pytest.approx(55.0)


@given(prices, prices)
def test_at_the_break_even_use_both_cost_the_same(committed, on_demand):
    share = break_even_utilization_frac(committed, on_demand)
    assert rented_cost_usd(1, share * SECONDS_PER_YEAR, on_demand) == pytest.approx(
        reserved_cost_usd(1, SECONDS_PER_YEAR, committed)
    )


def test_spot_without_interruptions_is_rent_and_checkpoints():
    """10 h of work, a checkpoint of 36 s each hour: 10.1 h at 2 USD on 4 nodes."""
    run = spot_run(10 * HOUR, 4, 2.0, 0.0, HOUR, 36.0, 300.0, 600.0)
    assert (run.lost_time_s, run.restart_time_s, run.wait_time_s, run.interruptions) == (0, 0, 0, 0)
    assert run.time_s == pytest.approx(10.1 * HOUR)
    assert run.cost_usd == pytest.approx(80.8)


def test_spot_by_hand():
    """One segment of 1 h, one interruption an hour on average, nothing else: e - 1 hours, of which e - 2 are lost."""
    run = spot_run(HOUR, 1, 1.0, 1 / HOUR, HOUR, 0.0, 0.0)
    assert run.billed_time_s == pytest.approx((np.e - 1) * HOUR)
    assert run.lost_time_s == pytest.approx((np.e - 2) * HOUR)
    assert run.interruptions == pytest.approx(np.e - 1)


def _simulate(rng, work_s, rate, interval_s, checkpoint_s, restart_s):
    """Return the billed time of one job, by playing it: exponential gaps, back to the last checkpoint, restart."""
    billed, done, booting = 0.0, 0.0, False
    while done < work_s - 1e-9:
        need_s = restart_s if booting else min(interval_s, work_s - done) + checkpoint_s
        gap = rng.exponential(1 / rate)
        if gap < need_s:
            billed, booting = billed + gap, True
        else:
            billed += need_s
            done, booting = (done, False) if booting else (done + interval_s, False)
    return billed


@pytest.mark.parametrize("per_hour", [0.05, 0.5, 2.0])
def test_spot_agrees_with_a_simulation(per_hour):
    """Mean of 4000 played jobs; the tolerance is four standard errors of that mean."""
    rng = np.random.default_rng(7)
    played = [_simulate(rng, 8 * HOUR, per_hour / HOUR, HOUR / 2, 60, 400) for _ in range(4000)]
    run = spot_run(8 * HOUR, 1, 1.0, per_hour / HOUR, HOUR / 2, 60, 400)
    assert run.billed_time_s == pytest.approx(np.mean(played), abs=4 * np.std(played) / np.sqrt(len(played)))


@given(
    st.floats(1, 1e6), st.floats(0, 1e-3), st.floats(60, 7200), st.floats(0, 600), st.floats(0, 600), st.floats(0, 3600)
)
def test_spot_parts_add_up_and_never_beat_the_work(work, rate, interval, checkpoint, restart, wait):
    run = spot_run(work, 2, 3.0, rate, interval, checkpoint, restart, wait)
    parts = run.work_time_s + run.checkpoint_time_s + run.lost_time_s + run.restart_time_s
    assert run.billed_time_s == pytest.approx(parts)
    assert run.time_s == pytest.approx(run.billed_time_s + run.wait_time_s)
    assert run.billed_time_s >= work
    assert min(run.lost_time_s, run.restart_time_s, run.wait_time_s, run.interruptions) >= 0
    more = spot_run(work, 2, 3.0, rate * 1.5, interval, checkpoint, restart, wait)
    assert more.cost_usd >= run.cost_usd * (1 - 1e-9)
    # Daly's form of the same sum.
    used = min(interval, work)
    if rate > 1e-7:
        daly = np.exp(rate * restart) * np.expm1(rate * (used + checkpoint)) / rate * work / used
        assert run.billed_time_s == pytest.approx(daly, rel=1e-6)


def test_the_best_interval_is_about_youngs():
    """Young 1974: sqrt(2 * cost * mean time between interruptions); 60 s and 5 h give 1470 s. The curve is flat there."""
    intervals = np.linspace(300, 6000, 500)
    best = intervals[np.argmin(spot_run(100 * HOUR, 1, 1.0, 1 / (5 * HOUR), intervals, 60.0, 300.0).cost_usd)]
    assert best == pytest.approx(np.sqrt(2 * 60 * 5 * HOUR), rel=0.1)


def test_spot_pays_below_its_break_even_price():
    run = spot_run(20 * HOUR, 1, 1.0, 0.2 / HOUR, HOUR, 60, 600)
    limit = spot_break_even_price_usd(10.0, run)
    assert limit < 10.0
    assert rented_cost_usd(1, run.billed_time_s, limit) == pytest.approx(rented_cost_usd(1, 20 * HOUR, 10.0))


def test_owning_by_hand():
    """300 000 USD over 4 years, half used: 10 kW busy, 2 kW idle, PUE 1.2, 0.10 USD/kWh; 5000 space, 12 000 staff a year;
    sold for 10 %. Capital 270 000; energy 6 kW * 35 040 h * 1.2 * 0.1 = 25 228.80; space 20 000; staff 48 000."""
    cost = owned_node_cost(300_000, 4 * SECONDS_PER_YEAR, 0.5, 10_000, 2_000, 1.2, 0.10, 5_000, 12_000, 0.1)
    assert round(cost.energy_usd, 2) == 25_228.80
    assert cost.total_usd == pytest.approx(270_000 + 25_228.80 + 20_000 + 48_000)
    assert cost.interest_usd == 0
    assert cost.usd_per_used_hour == pytest.approx(cost.total_usd / 17_520)


def test_interest_by_hand():
    """10 000 USD over 2 years at 10 %: two payments of 10 000 * 0.1 / (1 - 1.1^-2) = 5761.90; 1523.81 of it is interest."""
    cost = owned_node_cost(10_000, 2 * SECONDS_PER_YEAR, 1.0, 0, 0, 1.0, 0.0, interest_frac_per_year=0.10)
    assert round(cost.interest_usd, 2) == 1523.81


@given(st.floats(0, 1e6), st.floats(1, 10), st.floats(0.05, 1), st.floats(0, 0.5), st.floats(0, 1), st.floats(1, 2))
def test_parts_of_owning_add_up(capex, years, used, rate, residual, pue):
    cost = owned_node_cost(capex, years * SECONDS_PER_YEAR, used, 1e4, 2e3, pue, 0.1, 10, 20, residual, rate)
    parts = cost.capital_usd + cost.interest_usd + cost.energy_usd + cost.space_usd + cost.staff_usd
    assert cost.total_usd == pytest.approx(parts)
    assert min(cost.capital_usd, cost.interest_usd) >= 0
    # The share of `cost.owned_cost_usd` for the whole life is the same money, without interest.
    plain = owned_node_cost(capex, years * SECONDS_PER_YEAR, used, 1e4, 1e4, pue, 0.1)
    held = years * SECONDS_PER_YEAR
    assert plain.total_usd == pytest.approx(owned_cost_usd(1, held, capex, held, 1e4 * held, 0.1, pue))


@given(st.floats(1e-9, 1e-4))
def test_small_interest_is_continuous(rate):
    cost = owned_node_cost(1e4, 4 * SECONDS_PER_YEAR, 1.0, 0, 0, 1.0, 0.0, interest_frac_per_year=rate)
    # n equal payments: about (n + 1) / 2 years of interest on the whole.
    assert cost.interest_usd == pytest.approx(1e4 * rate * 2.5, rel=1e-2)


def test_owning_pays_from_its_break_even_use():
    """350 000 USD fixed over 4 years, 0.6 USD of energy an hour, rent 20.6 USD: 17 500 h of 35 040."""
    share = owning_break_even_frac(350_000, 0.6, 4 * SECONDS_PER_YEAR, 20.6)
    assert share == pytest.approx(17_500 / 35_040)
    assert owning_break_even_frac(1, 5.0, SECONDS_PER_YEAR, 4.0) == np.inf


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reserved_cost_usd(1, 1, -1), "never below 0"),
        (lambda: reserved_cost_usd(1, 1, 1, -1), "upfront"),
        (lambda: price_per_used_hour_usd(-1, 0.5), "never below 0"),
        (lambda: price_per_used_hour_usd(1, 0), "never used"),
        (lambda: break_even_utilization_frac(1, 0), "catalog"),
        (lambda: spot_run(1, 1, -2, 0, 1, 0, 0), "never below 0"),
        (lambda: spot_run(1, 1, 2, 0, 0, 0, 0), "checkpoint_interval_s"),
        (lambda: spot_run(1, 1, 2, -1, 1, 0, 0), "interruptions_per_s"),
        (lambda: spot_run(0, 1, 2, 0, 1, 0, 0), "work_time_s"),
        (lambda: owned_node_cost(-5, 1, 0.5, 1, 1, 1.1, 0.1), "capex_usd"),
        (lambda: owned_node_cost(5, 1, 70, 1, 1, 1.1, 0.1), "0.7"),
        (lambda: owned_node_cost(5, 1, 0.7, 1, 1, 0.9, 0.1), "pue"),
        (lambda: owned_node_cost(5, 1, 0.7, 1, 1, 1.1, 0.1, interest_frac_per_year=8), "0.08"),
        (lambda: owning_break_even_frac(5, 1, 1, -1), "never below 0"),
        (lambda: spot_break_even_price_usd(-1, spot_run(1, 1, 1, 0, 1, 0, 0)), "catalog"),
    ],
)
def test_outside_the_domain_is_refused(call, text):
    with pytest.raises(ModelInputError, match=text):
        call()


def test_dimensions(u):
    usd_per_hour = u.USD / u.hour
    run = spot_run(10 * u.hour, 2, 3 * usd_per_hour, 0.1 / u.hour, 1 * u.hour, 60 * u.s, 300 * u.s, 300 * u.s)
    assert (run.cost_usd / u.USD).check("[]")
    assert run.time_s.check("[time]")
    assert run.interruptions.to_base_units().magnitude == pytest.approx(
        spot_run(36000, 2, 3, 0.1 / 3600, 3600, 60, 300, 300).interruptions
    )
    assert (price_per_used_hour_usd(3 * usd_per_hour, 0.5) / usd_per_hour).check("[]")
    assert break_even_utilization_frac(3 * usd_per_hour, 5 * usd_per_hour).check("[]")
