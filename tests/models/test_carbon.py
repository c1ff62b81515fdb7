from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError, UnknownNameError
from aiinfra_widgets.models.carbon import (
    Footprint,
    elasticities,
    emissions,
    market_gco2e_per_kwh,
    what_if,
)

YEAR = 8760 * 3600.0
#: 1 MWh at the wall and PUE 1.2 in a grid of 400 g/kWh, half by wind; 8 devices of 150 kg, 4 years half used, for 73 h.
JOB = Footprint(3.6e9, 1.2, 400, 500, 0, 0.5, 8, 73 * 3600.0, 150_000, 4 * YEAR, 0.5)
MOST = {"allow_nan": False, "allow_infinity": False}


def test_by_hand():
    e = emissions(JOB)
    assert e.location_gco2e == pytest.approx(1200 * 400)
    assert e.market_gco2e == pytest.approx(1200 * 250)
    assert e.embodied_gco2e == pytest.approx(8 * 150_000 * 73 / 17_520)
    assert e.total_tco2e("location") == pytest.approx(0.480 + 0.005)
    assert e.total_tco2e("market") == pytest.approx(0.300 + 0.005)


# Patterson et al. 2021 (arXiv 2104.10350), table 4: T5, 512 TPUv3, 20 days, 310 W, PUE 1.12, 545 g/kWh: 46.7 t, both gross and
# net. GPT-3: 10 000 V100, 14.8 days, 330 W, PUE 1.10, 429 g/kWh: 552.1 t.
@pytest.mark.parametrize(
    ("devices", "days", "watts", "pue", "intensity", "tonnes"),
    [
        pytest.param(512, 20, 310, 1.12, 545, 46.7, id="t5"),
        pytest.param(10_000, 14.8, 330, 1.10, 429, 552.1, id="gpt-3"),
    ],
)
def test_published_totals_within_one_per_cent(devices, days, watts, pue, intensity, tonnes):
    joules = devices * watts * days * 86400
    job = Footprint(joules, pue, intensity, intensity, 0, 0, devices, days * 86400, 0, 4 * YEAR, 1)
    assert emissions(job).total_tco2e("location") == pytest.approx(tonnes, rel=0.01)
    assert emissions(job).total_tco2e("market") == pytest.approx(tonnes, rel=0.01)


@given(st.floats(0, 1500), st.floats(0, 1500), st.floats(0, 1))
def test_a_mix_lies_between_its_parts(residual, contract, share):
    mix = market_gco2e_per_kwh(residual, contract, share)
    assert min(residual, contract) - 1e-9 <= mix <= max(residual, contract) + 1e-9


@given(st.floats(1, 1e15), st.floats(1, 3), st.floats(1, 1500), st.floats(0, 1))
def test_parts_add_up_and_all_contracts_of_wind_leave_the_manufacture(joules, pue, grid, share):
    job = replace(JOB, it_energy_j=joules, pue=pue, location_gco2e_per_kwh=grid, contract_frac=share)
    e = emissions(job)
    assert e.total_gco2e("location") == e.location_gco2e + e.embodied_gco2e
    assert emissions(replace(job, contract_frac=1.0)).total_gco2e("market") == pytest.approx(e.embodied_gco2e)
    assert emissions(replace(job, pue=pue + 0.1)).location_gco2e > e.location_gco2e


@pytest.mark.parametrize("accounting", ["location", "market"])
def test_elasticities_are_the_slope_of_the_total(accounting):
    """Against a central difference of one part in 10 000, for every input that has one."""
    total = emissions(JOB).total_gco2e(accounting)
    slopes = elasticities(JOB, accounting)
    for name, slope in slopes.items():
        value = getattr(JOB, name)
        up, down = (what_if(JOB, accounting, {name: value * factor}) for factor in (1.0001, 0.9999))
        assert (up - down) / total / 2e-4 == pytest.approx(slope, rel=1e-4, abs=1e-9), name
    sizes = [abs(s) for s in slopes.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_in_a_clean_grid_the_manufacture_is_what_counts():
    dirty = replace(JOB, device_embodied_gco2e=1e6)
    clean = replace(dirty, location_gco2e_per_kwh=10)
    assert next(iter(elasticities(dirty, "location"))) in {"it_energy_j", "pue", "location_gco2e_per_kwh"}
    assert "embodied" in next(n for n in elasticities(clean, "location") if n not in {"num_devices", "held_time_s"})


def test_what_if_by_hand():
    """From 400 to 40 g/kWh: 1200 kWh * 360 g less. The same job twice as long in use: the manufacture halves."""
    assert what_if(JOB, "location", {"location_gco2e_per_kwh": 40}) == pytest.approx(-1200 * 360)
    assert what_if(JOB, "location", {"used_frac": 1.0}) == pytest.approx(-2500)
    assert what_if(JOB, "market", {}) == 0


def test_one_call_sweeps_places():
    grids = np.array([36.0, 216.0, 709.0])
    totals = emissions(replace(JOB, location_gco2e_per_kwh=grids)).total_tco2e("location")
    assert totals == pytest.approx(1.2 * grids / 1e3 + 0.005)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pue": 0.9}, "pue"),
        ({"contract_frac": 50}, "0.5"),
        ({"location_gco2e_per_kwh": 0}, "grid's row"),
        ({"lifetime_s": 0}, "lifetime_s"),
        ({"used_frac": 0}, "used_frac"),
        ({"it_energy_j": -1}, "it_energy_j"),
        ({"num_devices": float("nan")}, "num_devices"),
    ],
)
def test_outside_the_domain_is_refused(changes, text):
    with pytest.raises(ModelInputError, match=text):
        what_if(JOB, "location", changes)


def test_wrong_names_list_the_near_ones():
    with pytest.raises(UnknownNameError, match="location"):
        emissions(JOB).total_gco2e("locaton")
    with pytest.raises(UnknownNameError, match="used_frac"):
        what_if(JOB, "location", {"used_fraction": 1})


def test_nothing_emitted_has_nothing_to_reduce():
    with pytest.raises(ModelInputError, match="nothing to reduce"):
        elasticities(replace(JOB, it_energy_j=0, num_devices=0), "location")


def test_dimensions(u):
    per_kwh = u.gCO2e / u.kWh
    assert (market_gco2e_per_kwh(500 * per_kwh, 0 * per_kwh, 0.5) / per_kwh).check("[]")
