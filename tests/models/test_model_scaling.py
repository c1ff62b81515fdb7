import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    amdahl_speedup,
    fit_usl,
    gustafson_speedup,
    ideal_speedup,
    karp_flatt_serial_frac,
    speedup,
    strong_efficiency_frac,
    usl_peak_nodes,
    usl_speedup,
    weak_efficiency_frac,
)

nodes, shares = st.integers(1, 10**6), st.floats(0, 1)


# Hennessy & Patterson, worked examples on Amdahl's law: a processor 10 times faster for 40 % of the time gains 1.56;
# a speed-up of 80 on 100 processors leaves 0.25 % serial.
@pytest.mark.parametrize(
    ("n", "serial", "want"),
    [
        pytest.param(1, 0.3, 1.0, id="one-node-is-one"),
        pytest.param(4, 0.0, 4.0, id="nothing-serial-is-ideal"),
        pytest.param(1000, 1.0, 1.0, id="all-serial-gains-nothing"),
        pytest.param(2, 0.5, 4 / 3, id="half-serial-on-two"),
        pytest.param(10, 0.6, 1.56, id="hennessy-patterson-ten-times-faster"),
        pytest.param(100, 0.0025, 80, id="hennessy-patterson-80-of-100"),
        pytest.param(1e9, 0.05, 20, id="95-percent-parallel-ends-at-20"),
    ],
)
def test_amdahl_textbook_values(n, serial, want):
    assert amdahl_speedup(n, serial) == pytest.approx(want, rel=3e-3)


# Gustafson 1988: on 1024 processors, serial shares of 0.4 to 0.8 % of the parallel run; speed-ups from 1016 to 1020.
@pytest.mark.parametrize(("serial", "published"), [(0.008, 1016), (0.004, 1020)], ids=["most", "least"])
def test_gustafson_at_a_thousand_nodes(serial, published):
    assert gustafson_speedup(1024, serial) == pytest.approx(published, abs=1)


def test_the_articles_six_hours_are_seven_with_five_percent_serial():
    """24 h on 4 machines: printed as 6 h."""
    assert 24 / ideal_speedup(4) == 6.0
    assert 24 / amdahl_speedup(4, 0.05) == pytest.approx(6.9)


# SPEC SDM91 on a Sun SPARCcenter 2000, as shipped and fitted by the R package usl 3 (README, summary of specsdm91).
SPECSDM91 = [(1, 64.9), (18, 995.9), (36, 1652.4), (72, 1853.2), (108, 1828.9), (144, 1775.0), (216, 1702.2)]


def test_usl_fit_as_published_for_specsdm91():
    fit = fit_usl(SPECSDM91)
    assert fit.sigma == pytest.approx(0.0277285, rel=1e-5)
    assert fit.kappa == pytest.approx(0.0001044, abs=5e-8)
    assert fit.one_node_per_s == pytest.approx(89.9952330, rel=1e-6)
    assert fit.peak_nodes == pytest.approx(96.52, abs=0.01)
    assert fit.throughput_per_s(fit.peak_nodes) == pytest.approx(1884, abs=0.5)
    assert fit.residual_per_s * math.sqrt(7 / 4) == pytest.approx(82.8, abs=0.1)  # theirs divides by 4 degrees


@given(st.floats(1e-3, 1e9), st.floats(0, 1.5), st.floats(0, 0.5), st.sampled_from([(1, 2, 4), (1, 2, 3, 4, 8, 64)]))
def test_usl_fit_recovers_the_law_it_was_drawn_from(rate, sigma, kappa, counts):
    points = [(n, rate * usl_speedup(n, sigma, kappa)) for n in counts]
    fit = fit_usl(points)
    for n, throughput in points:
        assert fit.throughput_per_s(n) == pytest.approx(throughput, rel=1e-5)
    assert fit.sigma == pytest.approx(sigma, rel=1e-3, abs=1e-4)
    assert fit.kappa == pytest.approx(kappa, rel=1e-3, abs=1e-4)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1, 1e4)), min_size=3, max_size=12))
def test_usl_fit_of_any_points_stays_in_its_domain_and_beats_a_straight_line(points):
    assume(len({n for n, _ in points}) >= 3)
    fit = fit_usl(points)
    assert fit.sigma >= 0
    assert fit.kappa >= 0
    assert fit.peak_nodes >= 1
    n, rates = np.array(points).T
    line = (n @ rates) / (n @ n) * n  # the best law without contention and coherency
    assert fit.residual_per_s <= math.sqrt(np.mean((rates - line) ** 2)) * (1 + 1e-9) + 1e-9


def test_usl_fit_of_superlinear_points_is_a_straight_line():
    fit = fit_usl([(1, 10), (2, 21), (4, 44)])
    assert (fit.sigma, fit.kappa, fit.peak_nodes) == (0, 0, math.inf)


def test_usl_fit_says_when_a_second_node_already_loses():
    fit = fit_usl([(1, 100), (2, 60), (4, 40)])
    assert fit.sigma > 1
    assert fit.peak_nodes == 1


@pytest.mark.parametrize(
    "points",
    [[], [(1, 1), (2, 2)], [(1, 1), (1, 2), (2, 3)], [(1, 1), (2, 2), (3, 0)], [(0, 1), (1, 1), (2, 1)]],
    ids=["none", "two", "two-distinct", "no-throughput", "no-node"],
)
def test_usl_fit_refuses_too_little(points):
    with pytest.raises(ModelInputError):
        fit_usl(points)


@given(nodes, shares)
def test_usl_without_coherency_is_amdahl(n, serial):
    assert usl_speedup(n, serial, 0.0) == pytest.approx(amdahl_speedup(n, serial))


@given(nodes, shares)
def test_amdahl_never_beats_gustafson_nor_gustafson_the_ideal(n, serial):
    amdahl, gustafson = amdahl_speedup(n, serial), gustafson_speedup(n, serial)
    assert 1 - 1e-9 <= amdahl <= gustafson * (1 + 1e-9) <= ideal_speedup(n) * (1 + 2e-9)


@given(st.floats(0, 0.99), st.floats(1e-6, 0.5))
def test_nothing_beats_the_peak(sigma, kappa):
    peak = usl_peak_nodes(sigma, kappa)
    around = np.maximum(1.0, peak * np.array([0.5, 0.9, 1.1, 2.0]))
    assert np.all(usl_speedup(around, sigma, kappa) <= usl_speedup(peak, sigma, kappa) * (1 + 1e-12))


@pytest.mark.parametrize(
    ("sigma", "kappa", "want"),
    [(0.02, 0.0002, 70.0), (0.5, 0.0, math.inf), (1.0, 0.0, 1.0), (2.0, 0.1, 1.0), (0.0, 4.0, 1.0)],
    ids=["hand", "no-coherency-no-peak", "all-contention", "above-one", "below-one-node"],
)
def test_peak_hand_computed(sigma, kappa, want):
    assert usl_peak_nodes(sigma, kappa) == pytest.approx(want)


@given(st.integers(2, 10**4), shares)
def test_karp_flatt_inverts_amdahl(n, serial):
    assert karp_flatt_serial_frac(amdahl_speedup(n, serial), n) == pytest.approx(serial, abs=1e-9)


def test_efficiencies_by_hand():
    assert speedup(12.0, 4.0) == 3.0
    assert strong_efficiency_frac(12.0, 4.0, 4) == 0.75  # same work
    assert weak_efficiency_frac(12.0, 15.0) == pytest.approx(0.8)  # four times the work on four nodes


@pytest.mark.parametrize(
    ("law", "arguments"),
    [
        (amdahl_speedup, (0.5, 0.1)),
        (amdahl_speedup, (2, 1.1)),
        (gustafson_speedup, (0, 0.1)),
        (usl_speedup, (2, -0.1, 0)),
        (usl_speedup, (2, 0.1, -0.1)),
        (karp_flatt_serial_frac, (1, 1)),
        (speedup, (1, 0)),
    ],
)
def test_outside_the_domain_is_refused(law, arguments):
    with pytest.raises(ModelInputError):
        law(*arguments)


def test_dimensions(u):
    assert speedup(2 * u.min, 30 * u.s).to("").magnitude == pytest.approx(4)
    assert strong_efficiency_frac(2 * u.min, 40 * u.s, 4).to("").magnitude == pytest.approx(0.75)
    assert usl_speedup(4 * u.dimensionless, 0.1, 0.01).check("[]")
