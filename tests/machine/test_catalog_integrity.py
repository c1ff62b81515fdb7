"""What every shipped catalog must satisfy, stated once for all of them; then what only one of them must."""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from aiinfra_widgets.errors import CatalogError, UnknownNameError
from aiinfra_widgets.machine import catalog
from aiinfra_widgets.machine.rows import EXCUSE, UNITS

TODAY = date(2026, 11, 21)
#: catalog -> every field it may have -> the base unit of its values. A slip of the pen in a field or a unit falls out here.
FIELDS = {
    "accelerators": {
        r"peak_(fp32_flops|(tf32|bf16|fp16|fp8|fp4|int8)_dense_flops)": "flop/s",
        r"memory_capacity_bytes": "B",
        r"memory_bandwidth_bytes_per_s": "B/s",
        r"power_(max|idle)_w": "W",
        r"achievable_matmul_((bf16|fp8)_)?frac": "1",
    },
    "links": {r"bandwidth_oneway_bytes_per_s": "B/s", r"latency_s": "s"},
    "nodes": {
        r"accelerators": "1",
        r"injection_bandwidth_oneway_bytes_per_s": "B/s",
        r"power_max(_measured)?_w": "W",
    },
    "architectures": {
        r"layers|encoder_layers|decoder_layers|hidden|heads|kv_heads|head_size|ffn|gated|vocab|tied|positions": "1",
        r"experts|active_experts|max_seq_len|parameters|active_parameters": "1",
        r"forward_flop": "flop",
    },
    "prices": {r"(on_demand|spot|reserved_1y)_usd_per_h": "USD/h"},
    "grids": {r"carbon_intensity_20\d\d_gco2e_per_kwh": "gCO2e/kWh"},
    "pue": {r"pue_20\d\d": "1"},
    "embodied": {r"embodied(_accelerators)?_gco2e": "gCO2e"},
    "cpu_power": {r"power_(idle|busy)_w": "W"},
}
#: Where a text column names keys of another catalog.
REFERENCES = [
    ("nodes", "accelerator", "accelerators"),
    ("nodes", "node_link", "links"),
    ("nodes", "fabric_link", "links"),
    ("prices", "accelerator", "accelerators"),
]


def value(name: str, key: str, field: str) -> float:
    return catalog.item(name, key)[field].value


@pytest.mark.parametrize("name", catalog.NAMES)
class TestEveryCatalog:
    def test_every_row_has_unit_source_and_dates_that_fit(self, name):
        rows = catalog.load(name)
        assert len(rows) > 10
        for e in rows:
            assert e.key
            assert e.unit in {base for base, _, _ in UNITS.values()}, e.where
            assert e.scope
            assert e.source_url.startswith("https://"), e.where
            assert e.age_days(TODAY) >= 0, e.where
            assert e.checked_on is None or date(2026, 1, 1) <= e.checked_on <= TODAY, e.where
            assert e.checked_on is None or e.age_days(e.checked_on) >= 0, (
                f"{e.where}: checked before its source was out"
            )

    def test_a_row_that_nobody_checked_says_so_in_words(self, name):
        for e in catalog.load(name):
            if e.checked_on is None:
                assert "from memory" in e.note, e.where

    def test_the_unit_fits_the_field(self, name):
        for e in catalog.load(name):
            units = [unit for pattern, unit in FIELDS[name].items() if re.fullmatch(pattern, e.field)]
            assert units == [e.unit], f"{e.where}: {e.field} in {e.unit}"

    def test_zero_stands_only_for_a_yes_or_no(self, name):
        for e in catalog.load(name):
            assert e.value > 0 or (name == "architectures" and e.field in ("gated", "tied", "positions")), e.where

    def test_keys_are_spelt_alike_and_text_is_said_once(self, name):
        rows = catalog.load(name)
        for column in {c for e in rows for c in e.extra}:
            assert set(catalog.texts(name, column)) == set(catalog.keys(name))

    def test_every_spelling_leads_to_its_key(self, name):
        for e in catalog.load(name):
            for word in (e.key, *filter(None, e.extra.get("alias", "").split(catalog.SEPARATOR))):
                assert catalog.find(name, word) == catalog.find(name, word.upper()) == e.key, e.where


@pytest.mark.parametrize(("name", "column", "other"), REFERENCES)
def test_every_text_reference_resolves(name, column, other):
    for key, said in catalog.texts(name, column).items():
        if said:
            assert catalog.find(other, said) in catalog.keys(other), key
        else:
            assert name == "prices", f"{key} names no {column}"


# --- accelerators ---


def peaks(key: str) -> dict[str, float]:
    sheet = catalog.item("accelerators", key)
    return {n.split("_")[1]: e.value for n, e in sheet.items() if n.startswith("peak")}


@pytest.mark.parametrize("key", catalog.keys("accelerators"))
def test_a_data_sheet_is_as_physics_wants(key):
    sheet, peak = catalog.item("accelerators", key), peaks(key)
    assert {"memory_capacity_bytes", "memory_bandwidth_bytes_per_s", "achievable_matmul_frac"} <= set(sheet) or (
        {"memory_capacity_bytes", "memory_bandwidth_bytes_per_s", "achievable_matmul_bf16_frac"} <= set(sheet)
    )
    assert peak
    for slow, fast in pairwise(("fp32", "tf32", "bf16", "fp8", "fp4")):
        if slow in peak and fast in peak:
            # A matrix unit beside vector units gains up to 16; half the bits gain 2, and Gaudi 3 and FP4 a little more.
            assert peak[slow] <= peak[fast] < (20 if slow == "fp32" else 4) * peak[slow], (slow, fast)
    if {"bf16", "fp16"} <= set(peak):
        # Gaudi 3 runs fp16 at a quarter of its bf16 rate, as Intel's table has it.
        assert peak["bf16"] == peak["fp16"] or key == "gaudi-3"
    # Machine balance of real parts: 20 to 800 flop for a byte of memory traffic. A slip of 1000 falls out of it.
    best = max(v for p, v in peak.items() if p in ("fp32", "tf32", "bf16", "fp16"))
    assert 20 < best / sheet["memory_bandwidth_bytes_per_s"].value < 800
    assert all("dense" in e.scope for n, e in sheet.items() if n.startswith("peak"))
    if "power_idle_w" in sheet and "power_max_w" in sheet:
        assert sheet["power_idle_w"].value < sheet["power_max_w"].value / 2
    if "power_max_w" in sheet:
        assert 1e10 < best / sheet["power_max_w"].value < 1e13  # flop/J


def test_a_share_of_the_peak_is_measured_or_says_that_it_is_assumed():
    shares = [e for e in catalog.load("accelerators") if e.field.startswith("achievable")]
    assert {e.scope for e in shares} == {"measured", "assumed"}
    for e in shares:
        assert 0.4 < e.value < 1
        # What holds for every format is nobody's measurement.
        assert (e.scope == "assumed") == (e.field == "achievable_matmul_frac") == ("assumed" in e.note), e.where


@pytest.mark.parametrize(
    ("field", "generations"),
    [
        ("memory_bandwidth_bytes_per_s", ["p100-sxm2-16gb", "v100-sxm2-16gb", "a100-sxm4-40gb", "a100-sxm4-80gb"]),
        ("memory_bandwidth_bytes_per_s", ["a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb", "b200-sxm-180gb"]),
        (
            "memory_bandwidth_bytes_per_s",
            ["mi250x-oam-128gb", "mi300x-oam-192gb", "mi325x-oam-256gb", "mi355x-oam-288gb"],
        ),
        ("memory_bandwidth_bytes_per_s", ["tpu-v2", "tpu-v3", "tpu-v4", "tpu-v5p"]),
        ("peak_bf16_dense_flops", ["a100-sxm4-80gb", "h100-sxm5-80gb", "b200-sxm-180gb", "gb200-186gb"]),
        ("peak_bf16_dense_flops", ["tpu-v2", "tpu-v3", "tpu-v5e", "tpu-v4", "tpu-v5p", "tpu-v6e"]),
    ],
)
def test_accelerators_grow_over_the_generations(field, generations):
    values = [value("accelerators", key, field) for key in generations]
    assert all(old <= new for old, new in pairwise(values))
    assert values[0] < values[-1]


# --- links and nodes ---


def test_links_say_their_direction():
    assert all("one direction" in e.scope and "per_" in e.scope for e in catalog.load("links"))
    assert value("links", "infiniband-ndr", "bandwidth_oneway_bytes_per_s") == 50e9
    # PCIe from its definition: 16 lanes of 32 GT/s, 128 of 130 bits are data.
    pcie = value("links", "pcie-5-x16", "bandwidth_oneway_bytes_per_s")
    assert pcie == pytest.approx(32e9 * 16 * 128 / 130 / 8, rel=1e-4)


@pytest.mark.parametrize(
    "generations",
    [
        [f"nvlink-{n}" for n in range(1, 6)],
        [f"pcie-{n}-x16" for n in range(3, 7)],
        [f"infiniband-{n}" for n in ("edr", "hdr", "ndr", "xdr")],
        [f"ethernet-{n}g" for n in (10, 25, 40, 100, 200, 400, 800)],
        ["tpu-v2-ici", "tpu-v3-ici", "tpu-v5p-ici"],
        ["infinity-fabric-mi250x", "infinity-fabric-3", "infinity-fabric-mi355x"],
        ["gaudi-2-roce-node", "gaudi-3-roce-node"],
    ],
    ids=lambda keys: keys[0],
)
def test_bandwidth_grows_over_the_generations(generations):
    values = [value("links", key, "bandwidth_oneway_bytes_per_s") for key in generations]
    assert all(1 < new / old <= 4 for old, new in pairwise(values))


@pytest.mark.parametrize("key", catalog.keys("nodes"))
def test_a_node_adds_up(key):
    node = catalog.item("nodes", key)
    inside, between = (catalog.item("links", catalog.text("nodes", key, c)) for c in ("node_link", "fabric_link"))
    # Bandwidth inside is of one device; what leaves the node is a whole number of ports, or a share for each device.
    assert inside["bandwidth_oneway_bytes_per_s"].scope.split()[0] in ("per_device", "per_slot")
    port = between["bandwidth_oneway_bytes_per_s"]
    ports = node["injection_bandwidth_oneway_bytes_per_s"].value / port.value
    assert ports == pytest.approx(round(ports))
    if port.scope.startswith("per_device"):
        assert ports == node["accelerators"].value
    assert 0 < inside["latency_s"].value <= between["latency_s"].value < 1e-3
    device = catalog.item("accelerators", catalog.text("nodes", key, "accelerator"))
    if "power_max_w" in node:
        assert node["power_max_w"].value > node["accelerators"].value * device["power_max_w"].value
    if "power_max_measured_w" in node:
        assert node["power_max_measured_w"].value < node["power_max_w"].value


def test_an_accelerator_has_one_usual_node_and_a_source_one_node_for_each():
    devices, marks, users = (catalog.texts("nodes", c) for c in ("accelerator", "usual", "used_by"))
    usual = [devices[node] for node, mark in marks.items() if mark]
    assert set(marks.values()) == {"", "yes"}
    assert sorted(usual) == sorted(set(usual))
    assert set(devices.values()) == set(usual)
    pairs = [
        (devices[node], source) for node, said in users.items() for source in said.split(catalog.SEPARATOR) if source
    ]
    assert len(pairs) == len(set(pairs))


# --- money and carbon ---


def test_prices_are_per_hour_dated_to_the_day_and_a_commitment_or_a_risk_is_cheaper():
    by_key: dict[str, dict[str, float]] = {}
    for e in catalog.load("prices"):
        assert len(e.source_date) == 10
        by_key.setdefault(e.key, {})[e.field] = e.value
    for field, least in (("spot_usd_per_h", 20), ("reserved_1y_usd_per_h", 10)):
        both = [f for f in by_key.values() if field in f]
        assert len(both) > least
        assert all(0.1 * f["on_demand_usd_per_h"] < f[field] < f["on_demand_usd_per_h"] for f in both)


def test_grids_are_plausible_and_the_known_bad_row_is_gone():
    rows = catalog.load("grids")
    assert all(0 < e.value < 1500 for e in rows)
    assert "CAF" not in {e.key for e in rows}
    assert all("CC BY-SA 4.0" in e.note and "Ember" in e.note for e in rows)


def test_pue_is_at_least_one_and_the_big_are_better_than_the_average():
    assert all(1 <= e.value < 2 for e in catalog.load("pue"))
    average = catalog.pue("industry-average")
    assert average.field == "pue_2024"
    assert all(catalog.pue(site).value < average.value for site in ("google", "meta", "aws", "microsoft"))
    assert catalog.pue("Google").value == catalog.pue("google").value
    assert catalog.pue("industry-average", 2022).value != average.value


@pytest.mark.parametrize(("ask", "hint"), [(("gogle", None), "google"), (("google", 1999), "2023")])
def test_unknown_pue_is_refused_with_the_near_ones(ask, hint):
    with pytest.raises(UnknownNameError, match=hint):
        catalog.pue(*ask)


def test_the_accelerators_are_a_part_of_a_server():
    parts = [e for e in catalog.load("embodied") if e.field == "embodied_accelerators_gco2e"]
    assert parts
    for e in parts:
        assert e.value < value("embodied", e.key, "embodied_gco2e")
    # From 100 kg (a card) to 10 t (a big server).
    assert all(1e5 < e.value < 1e7 for e in catalog.load("embodied"))


def test_processors_draw_more_when_busy_and_the_known_bad_row_is_gone():
    names = catalog.keys("cpu_power")
    assert "epyc-5th-gen" not in names
    for name in names:
        watts = catalog.cpu_watts(name)
        assert 0 < watts.idle_w < watts.busy_w < 10
        assert watts.busy_w < 5 or EXCUSE in watts.entry.note


def test_attribution_is_where_the_licences_want_it():
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    for words in ("Ember", "CC BY-SA 4.0", "Cloud Carbon Footprint", "SPECpower", "karpenter-provider-aws"):
        assert words in notice


# --- a learner's files are held to the same ---


def learner(folder: Path, name: str, header: str, *rows: str) -> Path:
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


HEADER = "key,field,value,unit,scope,source_url,source_date,checked_on,note"


def test_a_spelling_that_two_keys_claim_is_refused_with_both_lines(tmp_path):
    row = "my-card,memory_capacity,24,GB,per_device,https://a.org,2026,never,,H100-SXM-80GB"
    learner(tmp_path, "accelerators", HEADER + ",alias", row)
    with pytest.raises(
        CatalogError, match=r"^accelerators\.csv:2: my-card claims 'H100-SXM-80GB', which is h100-sxm5-80gb"
    ):
        catalog.find("accelerators", "my-card", [tmp_path])


def test_text_that_rows_of_a_key_disagree_on_is_refused_with_both_lines(tmp_path):
    row = "dgx-h100,accelerators,8,1,per_node,https://a.org,2026,never,,a100-sxm4-80gb"
    learner(tmp_path, "nodes", HEADER + ",accelerator", row)
    with pytest.raises(CatalogError, match=r"nodes\.csv:2.*dgx-h100.*a100-sxm4-80gb|dgx-h100.*nodes\.csv:2"):
        catalog.text("nodes", "dgx-h100", "accelerator", [tmp_path])


@pytest.mark.parametrize(
    ("name", "row", "why"),
    [
        ("nodes", "n,accelerators,7.5,1,per_node,https://a.org,2026,never,", "whole number"),
        ("architectures", "m,layers,12.5,1,per_model,https://a.org,2026,never,", "whole number"),
        ("architectures", "m,gated,2,1,per_model,https://a.org,2026,never,", "plausible"),
        ("accelerators", "x,achievable_matmul_frac,1.2,1,measured,https://a.org,2026,never,", "plausible"),
        ("accelerators", "x,memory_capacity,-80,GB,per_device,https://a.org,2026,never,", "plausible"),
        ("pue", "mine,pue_2026,0.9,1,facility,https://a.org,2026,never,", "plausible"),
        ("embodied", "mine,embodied,0,kgCO2e,per_device,https://a.org,2026,never,", "plausible"),
        ("prices", "a/b/c,on_demand,-3,USD/h,per_instance,https://a.org,2026,never,", "plausible"),
        ("links", "l,bandwidth_oneway,100,Gbps,per_port,https://a.org,2026,never,", "did you mean 'GB/s'|did you mean"),
    ],
)
def test_implausible_rows_are_refused_with_file_and_line(tmp_path, name, row, why):
    learner(tmp_path, name, HEADER, row)
    with pytest.raises(CatalogError, match=rf"^{name}\.csv:2: .*({why})"):
        catalog.load(name, [tmp_path])
