import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import expected_max_time_s, normal_max_factor, slow_rank_parts, straggler_wait_time_s

JITTERS = ("normal", "lognormal", "exponential")


# Harter, "Expected values of normal order statistics", Biometrika 48 (1961), to the five decimals printed.
@pytest.mark.parametrize(
    ("n", "published"),
    [(1, 0.0), (2, 0.56419), (3, 0.84628), (4, 1.02938), (5, 1.16296), (10, 1.53875), (20, 1.86748), (100, 2.50759)],
)
def test_normal_order_statistics_as_published(n, published):
    assert normal_max_factor(n) == pytest.approx(published, abs=6e-6)


def test_two_three_and_five_normals_have_closed_forms():
    two, three = 1 / math.sqrt(math.pi), 1.5 / math.sqrt(math.pi)
    assert normal_max_factor(np.array([2, 3])) == pytest.approx([two, three], abs=1e-12)


@pytest.mark.parametrize("n", [2, 17, 1000, 10**6])
def test_normal_against_an_adaptive_integral(n):
    def integrand(z):
        return z * n * stats.norm.pdf(z) * math.exp((n - 1) * stats.norm.logcdf(z))

    assert normal_max_factor(n) == pytest.approx(
        integrate.quad(integrand, -9, 12, points=[0, 5], limit=300)[0], abs=1e-9
    )


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [2, 8, 4096])
def test_lognormal_against_an_adaptive_integral(ratio, n):
    variance = math.log1p(ratio**2)
    distribution = stats.lognorm(math.sqrt(variance), scale=math.exp(-variance / 2))
    assert distribution.mean() == pytest.approx(1)
    assert distribution.std() == pytest.approx(ratio)

    def later_than(x):
        return -math.expm1(n * distribution.logcdf(x)) if x > 0 else 1.0

    expected = sum(
        integrate.quad(later_than, a, b, limit=300, epsrel=1e-11)[0]
        for a, b in ((0, 2), (2, 20), (20, 200), (200, 2000), (2000, 1e6))
    )
    assert expected_max_time_s(1.0, ratio, n, "lognormal") == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("n", "harmonic"),
    [(1, 1.0), (2, 1.5), (3, 11 / 6), (4, 25 / 12), (10, 7381 / 2520)],
    ids=["one", "two", "three", "four", "ten"],
)
def test_exponential_is_the_harmonic_number(n, harmonic):
    assert expected_max_time_s(1.0, 1.0, n, "exponential") == pytest.approx(harmonic, rel=1e-14)


@pytest.mark.parametrize("n", [9_999, 10_000, 10_001, 50_000])
def test_harmonic_numbers_have_no_seam_where_the_expansion_takes_over(n):
    exact = math.fsum(1 / k for k in range(1, n + 1))
    assert expected_max_time_s(1.0, 1.0, n, "exponential") == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("jitter", JITTERS)
def test_against_drawn_ranks(jitter):
    generator, n, mean, std = np.random.default_rng(7), 6, 10e-3, 2e-3
    draws = {
        "normal": lambda s: generator.normal(mean, std, s),
        "exponential": lambda s: mean - std + generator.exponential(std, s),
        "lognormal": lambda s: mean * np.exp(math.sqrt(math.log(1.04)) * generator.normal(size=s) - math.log(1.04) / 2),
    }[jitter]((200_000, n))
    assert draws.std() == pytest.approx(std, rel=0.01)
    noise = draws.max(axis=1).std() / math.sqrt(len(draws))
    assert abs(expected_max_time_s(mean, std, n, jitter) - draws.max(axis=1).mean()) < 5 * noise


@given(st.floats(1e-6, 1e3), st.floats(0, 0.5), st.integers(1, 10**6), st.sampled_from(JITTERS))
def test_the_slowest_is_never_early_and_waits_grow_with_ranks(mean, ratio, n, jitter):
    wait = straggler_wait_time_s(mean, ratio * mean, n, jitter)
    assert wait >= 0
    assert straggler_wait_time_s(mean, ratio * mean, 2 * n, jitter) >= wait
    # No distribution exceeds (n-1)/sqrt(2n-1) deviations (Gumbel 1954, Hartley & David 1954).
    assert wait <= ratio * mean * (n - 1) / math.sqrt(2 * n - 1) * (1 + 1e-6) + 1e-9 * mean


@pytest.mark.parametrize("jitter", JITTERS)
def test_alone_or_without_jitter_nobody_waits(jitter):
    assert straggler_wait_time_s(5e-3, 1e-3, 1, jitter) == 0
    assert straggler_wait_time_s(5e-3, 0.0, 64, jitter) == pytest.approx(0, abs=1e-12)
    assert straggler_wait_time_s(0.0, 0.0, 64, jitter) == 0


@pytest.mark.parametrize(
    ("mean", "std", "n", "jitter"),
    [
        (1.0, 0.51, 4, "normal"),
        (1.0, 1.01, 4, "exponential"),
        (1.0, 3.01, 4, "lognormal"),
        (0.0, 1.0, 4, "normal"),
        (1.0, 0.1, 0, "normal"),
        (1.0, 0.1, 2e9, "normal"),
        (-1.0, 0.1, 2, "normal"),
        (1.0, -0.1, 2, "normal"),
        (1.0, 0.1, 2, "cauchy"),
    ],
)
def test_outside_the_domain_is_refused(mean, std, n, jitter):
    with pytest.raises(ModelInputError):
        expected_max_time_s(mean, std, n, jitter)


def test_a_wide_normal_is_told_to_use_lognormal():
    with pytest.raises(ModelInputError, match="use lognormal jitter"):
        expected_max_time_s(1.0, 0.6, 4)


@pytest.mark.parametrize(
    ("factor", "n", "slow", "want"),
    [
        pytest.param(2.0, 4, 1, (12.5, 7.5), id="one-of-four-at-half-speed"),
        pytest.param(2.0, 4, 4, (20.0, 0.0), id="all-slow-nobody-waits"),
        pytest.param(2.0, 1, 1, (20.0, 0.0), id="alone-it-is-arithmetic"),
        pytest.param(1.0, 4, 1, (10.0, 0.0), id="factor-one-changes-nothing"),
        pytest.param(5.0, 4, 0, (10.0, 0.0), id="no-slow-rank"),
    ],
)
def test_slow_rank_hand_computed(factor, n, slow, want):
    assert slow_rank_parts(10.0, factor, n, slow) == pytest.approx(want)


@given(st.floats(0, 1e3), st.floats(1, 100), st.integers(1, 512), st.data())
def test_slow_rank_parts_are_the_mean_over_ranks(compute, factor, n, data):
    slow = data.draw(st.integers(0, n))
    each = np.array([compute * factor] * slow + [compute] * (n - slow))
    mean, wait = slow_rank_parts(compute, factor, n, slow)
    assert mean == pytest.approx(each.mean())
    assert wait == pytest.approx((each.max() - each).mean(), abs=1e-9)


@pytest.mark.parametrize(("factor", "n", "slow"), [(0.5, 4, 1), (2, 4, 5), (2, 0, 0), (2, 4, -1), (math.nan, 4, 1)])
def test_slow_rank_refuses_outside_its_domain(factor, n, slow):
    with pytest.raises(ModelInputError):
        slow_rank_parts(1.0, factor, n, slow)


def test_slow_rank_refuses_a_negative_time():
    with pytest.raises(ModelInputError, match="compute_time_s"):
        slow_rank_parts(-1.0, 2.0, 4)


def test_slow_rank_sweeps_in_one_call_and_slows_one_rank_unless_told():
    mean, wait = slow_rank_parts(10.0, np.array([1.0, 2, 3]), 4)
    assert mean.tolist() == [10, 12.5, 15]
    assert (mean + wait).tolist() == [10, 20, 30]


def test_dimensions(u):
    for jitter in JITTERS:
        slowest = expected_max_time_s(10 * u.ms, 500 * u.us, 8, jitter)
        assert slowest.check("[time]")
        assert slowest.to("s").magnitude == pytest.approx(expected_max_time_s(10e-3, 0.5e-3, 8, jitter))
    mean, wait = slow_rank_parts(10 * u.ms, 2.0, 4)
    assert (mean + wait).to("ms").magnitude == pytest.approx(20)
