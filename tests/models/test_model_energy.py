import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    embodied_gco2e,
    embodied_share_frac,
    energy_j,
    energy_kwh,
    facility_energy_j,
    linear_power_w,
    node_power_w,
    operational_gco2e,
)

amounts = st.floats(0, 1e15)


@pytest.mark.parametrize(
    ("utilization", "want"), [(0, 40), (1, 200), (0.5, 120)], ids=["idle", "busy", "half-way-is-half-way"]
)
def test_power_hand_computed(utilization, want):
    assert linear_power_w(40, 200, utilization) == want


def test_a_node_is_its_cores_and_what_is_always_on():
    assert node_power_w(2, 0.7, 4.1, 1.0, 5.0) == pytest.approx(13.2)
    assert node_power_w(2, 0.7, 4.1, 0.0, 5.0) == pytest.approx(6.4)


@pytest.mark.parametrize(
    ("joules", "pue", "intensity", "want"),
    [
        pytest.param(3.6e9, 1.0, 44, 44_000, id="a-megawatt-hour-in-france"),
        pytest.param(3.6e9, 1.0, 709, 709_000, id="the-same-in-india"),
        pytest.param(3.6e6, 1.5, 400, 600, id="the-building-counts"),
        pytest.param(0, 1.2, 400, 0, id="no-energy-no-carbon"),
    ],
)
def test_carbon_hand_computed(joules, pue, intensity, want):
    assert operational_gco2e(facility_energy_j(joules, pue), intensity) == pytest.approx(want)


@given(amounts, st.floats(1e-3, 1500))
def test_carbon_is_kilowatt_hours_times_intensity_exactly(joules, intensity):
    assert operational_gco2e(joules, intensity) == (joules / 3.6e6) * intensity


@given(amounts, st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1))
def test_energy_lies_between_idle_and_busy(seconds, idle, more, utilization):
    energy = energy_j(linear_power_w(idle, idle + more, utilization), seconds)
    assert idle * seconds * (1 - 1e-9) <= energy <= (idle + more) * seconds * (1 + 1e-9)


@given(amounts, st.floats(1, 3))
def test_the_building_never_uses_less_than_its_computers(joules, pue):
    assert facility_energy_j(joules, pue) >= joules


# Patterson et al. 2021 (arXiv 2104.10350), table 4, GPT-3: 10 000 V100 for 14.8 days at 330 W, PUE 1.10 give 1287 MWh;
# 429 g/kWh give 552.1 t CO2e. T5: 512 TPUv3 for 20 days at 310 W, PUE 1.12: 85.7 MWh, 545 g/kWh, 46.7 t.
@pytest.mark.parametrize(
    ("devices", "days", "watts", "pue", "intensity", "mwh", "tonnes"),
    [
        pytest.param(10_000, 14.8, 330, 1.10, 429, 1287, 552.1, id="gpt-3"),
        pytest.param(512, 20, 310, 1.12, 545, 85.7, 46.7, id="t5"),
    ],
)
def test_training_runs_as_published(devices, days, watts, pue, intensity, mwh, tonnes):
    facility = facility_energy_j(energy_j(devices * watts, days * 86400), pue)
    assert energy_kwh(facility) / 1e3 == pytest.approx(mwh, rel=0.01)
    assert operational_gco2e(facility, intensity) / 1e6 == pytest.approx(tonnes, rel=0.01)


def test_embodied_share_by_hand():
    """150 kg over 4 years in use half the time: one day answers for 150 kg / 730."""
    day, share = 86400.0, embodied_gco2e(150_000, 86400.0, 4 * 365 * 86400.0, 0.5)
    assert share == pytest.approx(150_000 / 730)
    assert embodied_share_frac(share, share) == 0.5
    assert embodied_gco2e(150_000, 2 * day, 4 * 365 * day, 0.5) == pytest.approx(2 * share)


@given(st.floats(1, 1e9), st.floats(0.01, 1))
def test_a_whole_life_of_use_answers_for_the_whole_device(total, used):
    assert embodied_gco2e(total, 1e8 * used, 1e8, used) == pytest.approx(total)


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (linear_power_w, (10, 5, 0.5)),
        (linear_power_w, (10, 20, 1.1)),
        (node_power_w, (0, 1, 2, 0.5)),
        (node_power_w, (2, 1, 2, 0.5, -5)),
        (facility_energy_j, (1, 0.9)),
        (operational_gco2e, (1, 0)),
        (embodied_gco2e, (1, 1, 0)),
        (embodied_gco2e, (1, 1, 1, 0)),
        (embodied_share_frac, (0, 0)),
    ],
)
def test_outside_the_domain_is_refused(model, arguments):
    with pytest.raises(ModelInputError):
        model(*arguments)


def test_a_grid_of_zero_is_an_error_of_the_data():
    """One published row says 0 g/kWh."""
    with pytest.raises(ModelInputError, match="check the grid's row"):
        operational_gco2e(3.6e6, 0.0)


def test_dimensions(u):
    power = node_power_w(2, 0.7 * u.W, 4.1 * u.W, 0.5, 5 * u.W)
    energy = facility_energy_j(energy_j(power, 2 * u.hour), 1.2)
    assert energy.check("[energy]")
    assert operational_gco2e(energy, 400 * u.gCO2e / u.kWh).check("[emission]")
    assert embodied_gco2e(150 * u.gCO2e, 2 * u.hour, 4 * u.year).check("[emission]")
    assert embodied_share_frac(1 * u.gCO2e, 3 * u.gCO2e).to("").magnitude == pytest.approx(0.75)
