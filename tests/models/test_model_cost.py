import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    billed_time_s,
    capital_cost_usd,
    energy_cost_usd,
    owned_cost_usd,
    rented_cost_usd,
)

YEAR = 365 * 86400.0


@pytest.mark.parametrize(
    ("nodes", "seconds", "price", "want"),
    [
        pytest.param(1, 3600, 55.04, 55.04, id="an-hour-is-the-price"),
        pytest.param(4, 900, 55.04, 55.04, id="four-nodes-a-quarter-of-an-hour"),
        pytest.param(8, 0, 55.04, 0.0, id="not-held-not-paid"),
        pytest.param(3, 7200, 0.0, 0.0, id="a-free-node"),
    ],
)
def test_rent_hand_computed(nodes, seconds, price, want):
    assert rented_cost_usd(nodes, seconds, price) == pytest.approx(want)


# Amazon EC2 and Google Compute Engine bill by the second with a minimum of one minute; others by the full hour.
@pytest.mark.parametrize(
    ("held", "minimum", "increment", "want"),
    [
        pytest.param(0, 60, 1, 0, id="never-held"),
        pytest.param(0.2, 60, 1, 60, id="a-moment-is-a-minute"),
        pytest.param(59.9, 60, 1, 60, id="up-to-the-minute"),
        pytest.param(60.1, 60, 1, 61, id="then-by-the-second"),
        pytest.param(61, 60, 1, 61, id="whole-seconds-stay"),
        pytest.param(3601, 0, 3600, 7200, id="by-the-hour"),
        pytest.param(0.1 * 3, 0, 0.1, 0.3, id="rounding-of-floats-is-not-billed"),
    ],
)
def test_billing_hand_computed(held, minimum, increment, want):
    assert billed_time_s(held, minimum, increment) == pytest.approx(want)


def test_by_the_second_after_a_minute_unless_told():
    assert billed_time_s(np.array([1.0, 61.5])).tolist() == [60, 62]


@given(st.floats(1e-3, 1e8), st.floats(0, 3600), st.sampled_from([1.0, 60.0, 3600.0]))
def test_billing_never_less_than_held_nor_an_increment_too_much(held, minimum, increment):
    billed = billed_time_s(held, minimum, increment)
    assert max(held, minimum) - 1e-6 * increment <= billed < max(held, minimum) + increment
    assert billed_time_s(billed, minimum, increment) == pytest.approx(billed)


def test_owned_machine_to_the_cent():
    """2 nodes of 250 000 USD over 4 years, in use 70 % of the time, for 100 h at 8 kW each; PUE 1.3, 0.12 USD/kWh.

    Purchase: 2 * 250 000 * 100 / (4 * 8760 * 0.7) = 2038.49; energy: 1600 kWh * 1.3 * 0.12 = 249.60;
    upkeep: 2 * 100 h * 3 = 600. Together 2888.09.
    """
    cost = owned_cost_usd(2, 360_000, 250_000, 4 * YEAR, 1600 * 3.6e6, 0.12, 1.3, 0.7, 3.0)
    assert round(cost, 2) == 2888.09


@given(st.integers(0, 1000), st.floats(0, 1e7), st.floats(0, 1e6), st.floats(0.1, 1))
def test_an_owned_machine_is_paid_off_by_its_hours_of_use(nodes, seconds, capex, used):
    hourly = capital_cost_usd(1, 3600, capex, 4 * YEAR, used)
    assert capital_cost_usd(nodes, seconds, capex, 4 * YEAR, used) == pytest.approx(
        rented_cost_usd(nodes, seconds, hourly)
    )
    assert capital_cost_usd(1, 4 * YEAR * used, capex, 4 * YEAR, used) == pytest.approx(capex)


@given(st.floats(0, 1e12), st.floats(0, 10), st.floats(1, 3))
def test_parts_of_ownership_add_up(joules, tariff, pue):
    parts = capital_cost_usd(2, 3600, 1e4, YEAR) + energy_cost_usd(joules, tariff, pue)
    assert owned_cost_usd(2, 3600, 1e4, YEAR, joules, tariff, pue) == pytest.approx(parts)


def test_more_nodes_for_less_time_cost_the_same_until_the_minimum():
    """Ideal scaling: doubling the nodes halves the time; the minute's minimum makes many short nodes dear."""
    nodes = np.array([1, 2, 4, 8])
    cost = rented_cost_usd(nodes, billed_time_s(240 / nodes), 36.0)
    assert cost == pytest.approx([2.4, 2.4, 2.4, 4.8])


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (rented_cost_usd, (-1, 1, 1)),
        (rented_cost_usd, (1, 1, -1)),
        (billed_time_s, (1, 60, 0)),
        (capital_cost_usd, (1, 1, 1, 0)),
        (capital_cost_usd, (1, 1, 1, 1, 0)),
        (energy_cost_usd, (1, 1, 0.5)),
    ],
)
def test_outside_the_domain_is_refused(model, arguments):
    with pytest.raises(ModelInputError):
        model(*arguments)


def test_dimensions(u):
    hour = 1 * u.hour
    assert (rented_cost_usd(2, hour, 3 * u.USD / u.hour) / u.USD).check("[]")
    assert (energy_cost_usd(5 * u.kWh, 0.3 * u.USD / u.kWh, 1.2) / u.USD).check("[]")
    assert (capital_cost_usd(2, hour, 1e4 * u.USD, 4 * u.year) / u.USD).check("[]")
    assert billed_time_s(90.5 * u.s, 60 * u.s, 1 * u.s).to("s").magnitude == pytest.approx(91)
