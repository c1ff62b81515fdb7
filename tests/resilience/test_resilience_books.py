"""The trace, the books and the simulation: what can be computed by hand, and what must add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.experiments.resilience.books import PARTS, Books
from aiinfra_widgets.experiments.resilience.distil import against_best, shares
from aiinfra_widgets.experiments.resilience.simulate import simulate
from aiinfra_widgets.experiments.resilience.spec import ResilienceSpec
from aiinfra_widgets.experiments.resilience.trace import FailureTrace
from aiinfra_widgets.experiments.resilience.vocabulary import STRETCHES
from aiinfra_widgets.models import reliability


def row(row: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(STRETCHES, row, strict=True))


def books(at: float = 1.0, rate: float = 1.0) -> Books:
    """Return books whose next failure strikes after `at` seconds."""
    trace = FailureTrace(3)
    return Books(trace, rate=rate, position=trace.at(0) - at * rate)


def test_the_trace_is_exponential_and_the_same_again() -> None:
    trace, again = FailureTrace(7), FailureTrace(7)
    gaps = np.array([trace.gap(i) for i in range(4000)])
    assert [again.at(i) for i in (999, 3)] == [trace.at(999), trace.at(3)]  # in whatever order it is asked
    assert gaps.mean() == pytest.approx(1, abs=0.05)
    assert gaps.std() == pytest.approx(1, abs=0.08)
    assert FailureTrace(8).at(0) != trace.at(0)
    assert {trace.node(i, 3) for i in range(100)} == {0, 1, 2}
    assert trace.next_after(trace.at(41)) == 42


def test_a_stretch_that_a_checkpoint_ends_is_useful() -> None:
    kept = books(at=10)
    assert kept.step(0.5) is None
    assert kept.checkpoint(0.1) is None
    (found,) = map(row, kept.rows)
    assert (found["useful_s"], found["checkpoint_s"], found["lost_s"]) == (0.5, 0.1, 0.0)
    assert kept.clock_s == pytest.approx(0.6)


def test_a_failure_undoes_the_work_since_the_checkpoint_and_no_more() -> None:
    kept = books(at=1.0)
    kept.step(0.4)
    kept.checkpoint(0.1)
    late_s = kept.step(0.8)
    assert late_s == pytest.approx(0.3)  # 0.4 + 0.1 + 0.8 - 1.0: nobody knew, and worked in vain
    kept.undo()
    kept.unnoticed(0.3 + 0.2)
    assert kept.recover(0.05) is None
    safe, lost = map(row, kept.rows)
    assert safe["useful_s"] == 0.4
    assert (lost["useful_s"], lost["lost_s"]) == (0.0, pytest.approx(0.5))
    assert (lost["detection_s"], lost["restart_s"]) == (0.5, 0.05)
    assert lost["failures"] == safe["failures"]
    assert sum(kept.totals.values()) == pytest.approx(kept.clock_s)


def test_a_checkpoint_that_a_failure_tears_is_lost_with_the_work() -> None:
    kept = books(at=1.0)
    kept.step(0.95)
    kept.torn_checkpoint(0.05)
    kept.undo()
    kept.unnoticed(0.1)
    kept.recover(0.2)
    (found,) = map(row, kept.rows)
    assert found["lost_s"] == pytest.approx(1.0)
    assert found["checkpoint_s"] == 0.0


def test_in_place_nothing_is_undone() -> None:
    kept = books(at=1.0)
    kept.step(0.9)
    late_s = kept.step(0.2)
    assert late_s == pytest.approx(0.1)
    kept.unnoticed(late_s)
    kept.recover(0.05)
    kept.keep()
    struck, later = map(row, kept.rows)
    assert (struck["lost_s"], struck["useful_s"]) == (0.0, 0.0)
    assert later["useful_s"] == pytest.approx(1.0)


def test_nothing_fails_while_a_failure_goes_unnoticed() -> None:
    kept = books(at=1.0)
    kept.unnoticed(100.0)
    assert kept.left_s() == pytest.approx(1.0)


@given(
    interval=st.floats(0.05, 5), mtbf=st.floats(0.5, 100), cost=st.floats(0.001, 0.5), restart=st.floats(0.001, 1),
    recovery=st.sampled_from(["restart", "in-place"]), seed=st.integers(0, 50),
)  # fmt: skip
def test_the_simulation_tells_of_every_second(
    interval: float, mtbf: float, cost: float, restart: float, recovery: str, seed: int
) -> None:
    spec = ResilienceSpec.make(
        {
            "interval_s": interval,
            "mtbf_s": mtbf,
            "checkpoint_cost_s": cost,
            "restart_time_s": restart,
            "recovery": recovery,
        }
    )
    spent = simulate(spec, seed)
    assert all(s >= -1e-9 for s in spent.values()), spent
    whole = sum(spent.values())
    assert whole >= spec.duration_s - 1e-6
    assert whole <= spec.duration_s + 20 * (spec.detection_time_s + restart + 0.02)


@pytest.mark.parametrize("recovery", ["restart", "in-place"])
def test_the_simulation_is_the_renewal_argument_in_the_long_run(recovery: str) -> None:
    spec = ResilienceSpec.make({"recovery": recovery, "duration_s": 60_000.0, "interval_s": 0.7})
    spent = simulate(spec, 1)
    late = (spec.interval_s, spec.checkpoint_cost_s, spec.job_mtbf_s)
    model = reliability.goodput_in_place if spec.hands_over else reliability.goodput
    exact = model(*late, spec.recovery_time_s, spec.detection_time_s)
    whole = sum(spent.values())
    expected = (
        exact.training_goodput_frac, exact.checkpoint_frac, exact.lost_frac, exact.restart_frac, exact.detection_frac,
    )  # fmt: skip
    assert [spent[p] / whole for p in PARTS] == pytest.approx(list(expected), abs=0.006)


def made_up(goodput: float, seed: int, many: int = 60) -> pd.DataFrame:
    """Return the stretches of a run: cycles of one second on average, of which so much is useful."""
    length = np.random.default_rng(seed).exponential(size=many)
    found = pd.DataFrame(0.0, index=range(many), columns=list(STRETCHES))
    found["failures"], found["useful_s"], found["lost_s"] = np.arange(many), goodput * length, (1 - goodput) * length
    return found


def test_shares_carry_their_interval() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        spent = np.zeros((40, 5))
        spent[:, 0], spent[:, 2] = rng.exponential(0.7, 40), rng.exponential(0.3, 40)
        found = shares(spent)["training_goodput_frac"]
        assert found.interval
        covered += found.low <= 0.7 <= found.high
    assert 85 <= covered <= 99  # of 95


def test_few_cycles_have_no_interval() -> None:
    found = shares(np.ones((3, 5)))["training_goodput_frac"]
    assert (found.value, found.low, found.interval) == (pytest.approx(0.2), None, False)


def test_runs_are_compared_failure_by_failure() -> None:
    close = against_best({1.0: made_up(0.80, 5), 2.0: made_up(0.79, 5), 4.0: made_up(0.5, 5)})
    assert close[1.0][1] <= 0 <= close[1.0][2]
    assert close[2.0][1] == pytest.approx(0.01)  # the same luck for both: the difference is all that is left
    assert close[4.0][1] == pytest.approx(0.30)


def test_of_few_failures_nothing_is_known() -> None:
    found = against_best({1.0: made_up(0.9, 5, 4), 2.0: made_up(0.1, 5, 4)})
    assert found[2.0][1:] == (-1.0, 1.0)
