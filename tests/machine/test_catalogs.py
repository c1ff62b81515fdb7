"""Catalogs are asked by exact name, a learner's rows join ours, and a bad row of anybody's is refused with file and line."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pint
import pytest

from aiinfra_widgets.errors import CatalogError, UnknownNameError
from aiinfra_widgets.machine import catalog
from aiinfra_widgets.machine.rows import COLUMNS, UNITS, read

HEADER = ",".join(COLUMNS)
GOOD = "mine-1,power_idle,1,W,per_vcpu,https://example.org/a,2026-01,2026-02-03,"


def written(folder: Path, name: str, *rows: str, header: str = HEADER) -> Path:
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


# --- asking ---


def test_price_knows_its_age():
    price = catalog.price("aws", "us-east-1", "p5.48xlarge")
    assert (price.usd_per_hour, price.accelerator, price.accelerator_count) == (55.04, "H100-80GB", 8)
    assert price.usd_per_s * 3600 == pytest.approx(55.04)
    assert price.age_days(date(2026, 7, 21)) == 1
    assert catalog.price("gcp", "us-central1", "a3-highgpu-8g", "spot").usd_per_hour == pytest.approx(50.61, abs=0.01)


def test_grid_by_code_or_name_newest_or_asked():
    france = catalog.grid("FRA")
    assert (france.year, france.carbon_intensity_gco2e_per_kwh) == (2024, 44.18)
    assert catalog.grid("France") == catalog.grid("FRA", 2024) == france
    assert france.source_date == "2025-08-03"


@pytest.mark.parametrize(
    ("ask", "hint"),
    [
        pytest.param(lambda: catalog.price("aws", "us-east-1", "p5.48xlrge"), "p5.48xlarge", id="instance"),
        pytest.param(lambda: catalog.price("aws", "us-east-1", "p5.48xlarge", "spot"), "on_demand", id="kind"),
        pytest.param(lambda: catalog.grid("Frnce"), "France", id="region"),
        pytest.param(lambda: catalog.grid("FRA", 1999), "2024", id="year"),
        pytest.param(lambda: catalog.cpu_watts("epyc-4th-gn"), "epyc-4th-gen", id="architecture"),
        pytest.param(lambda: catalog.accelerator("NVIDIA L40"), "NVIDIA L40S", id="the-L40-is-no-L40S"),
        pytest.param(lambda: catalog.load("price"), "prices", id="catalog"),
    ],
)
def test_unknown_names_are_refused_with_the_near_ones(ask, hint):
    with pytest.raises(UnknownNameError, match=r"did you mean|known:") as caught:
        ask()
    assert hint in str(caught.value)


def test_a_device_is_found_by_what_its_driver_calls_it():
    assert catalog.accelerator("NVIDIA H200") == catalog.item("accelerators", "h200-sxm-141gb")
    assert catalog.find("accelerators", "NVIDIA H100 80GB HBM3") == "h100-sxm5-80gb"
    assert catalog.find("accelerators", "nvidia_h100  80gb-hbm3") == "h100-sxm5-80gb"


def test_units_agree_with_pint():
    """Every conversion of the small table, against an independent library."""
    registry = pint.UnitRegistry()
    registry.define("FLOP = count")
    registry.define("USD = [currency]")
    registry.define("gCO2e = gram")
    registry.define("tCO2e = 1e6 gram")
    words = {"B": "byte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "MiB": "mebibyte", "GiB": "gibibyte"}

    def spelt(unit: str) -> str:
        head, _, tail = unit.partition("/")
        head = words.get(head, head).replace("flop", "FLOP").replace("Gbit", "gigabit").replace("Mbit", "megabit")
        return f"{head}/{tail}" if tail else head

    for printed, (base, factor, _) in UNITS.items():
        if base != "1":
            quantity = registry.Quantity(3.0, spelt(printed))
            assert quantity.to(spelt(base)).magnitude == pytest.approx(3.0 * factor), printed
            assert registry.Quantity(3.0 * factor, spelt(base)).to(spelt(printed)).magnitude == pytest.approx(3.0), (
                printed
            )


# --- a learner's rows, and bad ones ---


def test_extra_rows_are_merged_over_ours_and_the_last_folder_wins(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    row = "FRA,carbon_intensity_2024,{},gCO2e/kWh,average,https://example.org/a,2026-01-02,never,"
    for folder, value in ((first, "10"), (second, "20")):
        folder.mkdir()
        written(folder, "grids", row.format(value))
    ours = len(catalog.load("grids"))
    monkeypatch.setenv(catalog.ENV, os.pathsep.join([str(first), str(second)]))
    assert catalog.grid("FRA").carbon_intensity_gco2e_per_kwh == 20
    assert len(catalog.load("grids")) == ours
    assert catalog.grid("FRA", extra=[first]).carbon_intensity_gco2e_per_kwh == 10
    assert catalog.grid("DEU").carbon_intensity_gco2e_per_kwh == 342.06
    monkeypatch.setenv(catalog.ENV, str(tmp_path / "absent"))
    with pytest.raises(CatalogError, match="not a folder"):
        catalog.load("grids")


def test_an_edited_file_is_read_again(tmp_path):
    row = "my-lab,on_demand,{},USD/h,per_instance,https://example.org,2026-01-02,never,"
    written(tmp_path, "prices", row.format("1"))
    assert catalog.item("prices", "my-lab", [tmp_path])["on_demand_usd_per_h"].value == 1
    written(tmp_path, "prices", row.format("12.5"))
    assert catalog.item("prices", "my-lab", [tmp_path])["on_demand_usd_per_h"].value == 12.5


@pytest.mark.parametrize(
    ("row", "why"),
    [
        pytest.param("k,power_idle,1,,per_vcpu,https://a.org,2026-01,never,", "unit is empty", id="no-unit"),
        pytest.param("k,power_idle,1,W,per_vcpu,,2026-01,never,", "source_url is empty", id="no-source"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,,never,", "source_date is empty", id="no-date"),
        pytest.param("k,power_idle,1,W,,https://a.org,2026-01,never,", "scope is empty", id="no-scope"),
        pytest.param("k,power_idle,1,Wat,per_vcpu,https://a.org,2026-01,never,", "'Wat' is not known", id="unit"),
        pytest.param("k,power_idle,one,W,per_vcpu,https://a.org,2026-01,never,", "one", id="no-number"),
        pytest.param("k,power_idle,nan,W,per_vcpu,https://a.org,2026-01,never,", "nan", id="nan"),
        pytest.param("k,power_idle,inf,W,per_vcpu,https://a.org,2026-01,never,outside range: x", "inf", id="inf"),
        pytest.param("k,power_idle,1,W,per_vcpu,datasheet,2026-01,never,", "no address", id="no-address"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,2026-13,never,", "month", id="bad-date"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,spring,never,", "no date", id="no-date-at-all"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,2026-01,soon,", "checked_on", id="checked"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,2026-01", "fewer columns", id="short"),
        pytest.param("k,power_idle,1,W,per_vcpu,https://a.org,2026-01,never,a,b", "more or fewer", id="long"),
        pytest.param("k,power_busy,8.96,W,per_vcpu,https://a.org,2026-01,never,", "plausible", id="EPYC-5th-Gen"),
        pytest.param("mine-1,power_idle,2,W,per_vcpu,https://a.org,2026-01,never,", "already given", id="twice"),
        pytest.param("mine-1,power_busy,0.9,W,per_vcpu,https://a.org,2026-01,never,", "swapped", id="busy-below-idle"),
    ],
)
def test_planted_rows_are_refused_with_file_and_line(tmp_path, row, why):
    path = written(tmp_path, "cpu_power", GOOD, row)
    with pytest.raises(CatalogError, match=r"^cpu_power\.csv:3: ") as caught:
        read(path, "cpu_power")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("grids", "CAF,carbon_intensity_2022,0,gCO2e/kWh,average,https://a.org,2025-08,never,"),
        ("grids", "X,carbon_intensity_2022,1500,gCO2e/kWh,average,https://a.org,2025-08,never,"),
        ("prices", "a/b/c,on_demand,0,USD/h,per_instance,https://a.org,2025-08,never,"),
        ("prices", "a/b/c,on_demand,-1,USD/h,per_instance,https://a.org,2025-08,never,outside range: a gift"),
    ],
)
def test_implausible_rows_of_the_sources_are_refused(tmp_path, name, row):
    with pytest.raises(CatalogError, match=rf"^{name}\.csv:2: .*plausible"):
        read(written(tmp_path, name, row), name)


def test_a_high_value_passes_with_a_reason(tmp_path):
    row = "old,power_busy,8.6,W,per_vcpu,https://a.org,2026-01,never,outside range: few cores per chip"
    assert read(written(tmp_path, "cpu_power", row), "cpu_power")[0].value == 8.6


def test_a_file_that_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(CatalogError, match=r"^links\.csv:1: no column unit"):
        read(written(tmp_path, "links", header=HEADER.replace("unit,", "")), "links")
    (tmp_path / "links.csv").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(CatalogError, match="cannot be read"):
        read(tmp_path / "links.csv", "links")


def test_the_catalogs_are_light_to_import():
    code = "import sys, aiinfra_widgets.machine.catalog as c; c.load('prices'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pint", "pandas", "numpy", "torch", "pydantic", "psutil"} & set(loaded)


def test_an_installed_wheel_finds_its_own_copy(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accelerators.csv").write_text(HEADER + "\n")
    monkeypatch.setattr(catalog.resources, "files", lambda package: tmp_path)
    assert catalog.data_folder() == tmp_path / "data"
