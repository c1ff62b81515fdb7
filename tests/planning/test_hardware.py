"""Catalog rows become the machines that models compute for; a name is matched whole or refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from aiinfra_widgets.errors import CatalogError, UnknownNameError
from aiinfra_widgets.machine import catalog
from aiinfra_widgets.models.transformer.cluster import Accelerator
from aiinfra_widgets.planning import hardware

PUBLISHED = list(csv.DictReader((catalog.data_folder() / "published.csv").open(encoding="utf-8")))
HEADER = "key,field,value,unit,scope,source_url,source_date,checked_on,note"


def test_an_accelerator_is_its_data_sheet_and_its_measured_share():
    device = hardware.accelerator("A100-SXM4-80GB", "bf16")
    assert (device.peak_flops, device.memory_bytes) == (312e12, 80 * 2**30)
    assert device.memory_bandwidth_bytes_per_s == pytest.approx(2.039e12)
    assert device.achievable_frac == pytest.approx(271.2 / 312, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "precision", "frac", "scope"),
    [
        pytest.param("h100-sxm5-80gb", "bf16", 794.5 / 989, "measured", id="own-format"),
        pytest.param("h100-sxm5-80gb", "fp16", 794.5 / 989, "measured", id="same-unit-runs-fp16"),
        pytest.param("h100-sxm5-80gb", "fp8", 1402.6 / 1979, "measured", id="fp8"),
        pytest.param("h100-sxm5-80gb", "tf32", 0.75, "assumed", id="nobody-measured-tf32"),
        pytest.param("gaudi-3", "fp16", 0.75, "assumed", id="another-rate-is-another-unit"),
        pytest.param("v100-sxm2-16gb", "fp16", 0.8, "assumed", id="volta"),
    ],
)
def test_the_share_of_the_peak_says_whether_it_was_measured(name, precision, frac, scope):
    row = hardware.achievable(name, precision)
    assert row.value == pytest.approx(frac, abs=1e-4)
    assert row.scope == scope
    assert hardware.accelerator(name, precision).achievable_frac == row.value


def test_attention_stays_in_16_bits_when_the_products_run_in_8():
    device = hardware.accelerator("h100-sxm5-80gb", "fp8")
    assert device.peak_flops == 1979e12
    assert device.peak_16bit_flops == 989.5e12


def test_every_catalogued_device_gives_an_accelerator_in_each_of_its_formats():
    for key in catalog.keys("accelerators"):
        formats = [f.split("_")[1] for f in catalog.item("accelerators", key) if f.startswith("peak")]
        for precision in formats:
            assert isinstance(hardware.accelerator(key, precision), Accelerator), (key, precision)


@pytest.mark.parametrize("node", catalog.keys("nodes"))
def test_every_catalogued_node_gives_a_cluster(node):
    device = catalog.item("accelerators", catalog.text("nodes", node, "accelerator"))
    precision = next(f.split("_")[1] for f in device if f.startswith("peak"))
    cluster = hardware.cluster(node, precision)
    # A node is where links are faster: what crosses the fabric is never the quicker way.
    assert cluster.fabric_bandwidth_oneway_bytes_per_s <= cluster.node_bandwidth_oneway_bytes_per_s
    assert cluster.node_latency_s <= cluster.fabric_latency_s
    assert hardware.cluster(node.upper().replace("-", " "), precision) == cluster


def test_a_dgx_a100_is_eight_devices_with_200_gbit_each():
    cluster = hardware.cluster_for("A100-SXM4-80GB", "bf16")
    assert cluster.per_node == 8
    assert cluster.node_bandwidth_oneway_bytes_per_s == 300e9
    assert cluster.fabric_bandwidth_oneway_bytes_per_s == 25e9
    assert cluster == hardware.cluster("Selene", "bf16")


def test_who_published_decides_which_node_it_was():
    bloom = "BigScience tr11-176B prequel (Jean Zay A100)"
    assert hardware.node_for("A100-SXM4-80GB", bloom) == "jean-zay-a100"
    assert hardware.cluster_for("A100-SXM4-80GB", "fp16", bloom).fabric_bandwidth_oneway_bytes_per_s == 4 * 12.5e9 / 8
    assert hardware.node_for("A100-SXM4-80GB", "somebody else") == "dgx-a100-80gb"
    # A source names its own accelerator's node only: BLOOM says nothing of an H100.
    assert hardware.node_for("H100-SXM5-80GB", bloom) == "dgx-h100"


def test_every_published_accelerator_resolves_and_to_the_device_that_it_names():
    pairs = {(row["accelerator"], row["source"]) for row in PUBLISHED}
    assert len({name for name, _ in pairs}) > 15
    for name, source in pairs:
        key = catalog.find("accelerators", name)
        assert catalog.text("nodes", hardware.node_for(name, source), "accelerator") == key
        # The maker's number is in the key: an A100 row never becomes an H100 by way of an alias.
        number = name.replace("Pascal GPU", "P100").replace("AMD ", "").split("-")[0].split(" ")[0].lower()
        assert number.replace("tpuv", "tpu-v") == key[: len(number.replace("tpuv", "tpu-v"))]


def test_every_node_that_a_source_used_is_of_a_published_source():
    sources = {row["source"] for row in PUBLISHED}
    for node, said in catalog.texts("nodes", "used_by").items():
        assert set(filter(None, said.split(catalog.SEPARATOR))) <= sources, node


@pytest.mark.parametrize("precision", sorted({row["precision"] for row in PUBLISHED if row["precision"]}))
def test_every_published_precision_is_known(precision):
    assert hardware.precision_key(precision) in hardware.PRECISIONS


@pytest.mark.parametrize(
    ("ask", "hint"),
    [
        pytest.param(lambda: hardware.accelerator("L40", "bf16"), "did you mean .*L40S", id="an-L40-is-no-L40S"),
        pytest.param(lambda: hardware.accelerator("H100 SXM5 81GB", "bf16"), "did you mean", id="unknown-size"),
        pytest.param(lambda: hardware.accelerator("h100-sxm5-80gb", "bf15"), "did you mean .*bf16", id="precision"),
        pytest.param(
            lambda: hardware.cluster("dgx-a100", "bf16") and hardware.cluster("dgx-a10", "bf16"), "DGX A100", id="node"
        ),
        pytest.param(lambda: hardware.node_for("epyc-9654"), "0 nodes say|0 nodes that", id="no-node"),
    ],
)
def test_unknown_names_are_refused_with_the_near_ones(ask, hint):
    with pytest.raises(UnknownNameError, match=hint):
        ask()


def test_a_format_that_the_device_lacks_is_never_taken_from_another():
    with pytest.raises(CatalogError, match=r"v100-sxm2-16gb has no peak rate in bf16; it has fp32, fp16"):
        hardware.accelerator("V100-SXM2-16GB", "bf16")


# --- a learner's own files ---


def learner(folder: Path, name: str, *rows: str, columns: str = "") -> None:
    (folder / f"{name}.csv").write_text("\n".join([HEADER + columns, *rows]) + "\n")


CARD = (
    "my-card,peak_bf16_dense,50,TFLOP/s,per_device dense,https://a.org,2026,never,,My Card",
    "my-card,memory_capacity,24,GB,per_device,https://a.org,2026,never,,",
    "my-card,memory_bandwidth,600,GB/s,per_device,https://a.org,2026,never,,",
)
NODE = (
    "my-box,accelerators,2,1,per_node,https://a.org,2026,never,,my-card,pcie-4-x16,ethernet-10g,yes",
    "my-box,injection_bandwidth_oneway,10,Gbit/s,per_node one direction,https://a.org,2026,never,,my-card,pcie-4-x16,ethernet-10g,yes",
)
NODE_COLUMNS = ",accelerator,node_link,fabric_link,usual"


def test_a_learner_adds_a_device_and_a_node_by_environment(tmp_path, monkeypatch):
    share = "my-card,achievable_matmul_bf16_frac,0.7,1,measured,https://a.org,2026,never,,"
    learner(tmp_path, "accelerators", *CARD, share, columns=",alias")
    learner(tmp_path, "nodes", *NODE, columns=NODE_COLUMNS)
    monkeypatch.setenv(catalog.ENV, str(tmp_path))
    cluster = hardware.cluster_for("My Card", "bfloat16")
    assert (cluster.accelerator.peak_flops, cluster.accelerator.achievable_frac, cluster.per_node) == (50e12, 0.7, 2)
    assert cluster.fabric_bandwidth_oneway_bytes_per_s == 10e9 / 8 / 2


def test_a_learner_overrides_one_number_of_ours_and_keeps_the_rest(tmp_path):
    learner(tmp_path, "nodes", "dgx-h100,injection_bandwidth_oneway,1600,Gbit/s,per_node,https://a.org,2026,never,")
    ours, theirs = hardware.cluster("dgx-h100", "bf16"), hardware.cluster("dgx-h100", "bf16", [tmp_path])
    assert theirs.fabric_bandwidth_oneway_bytes_per_s == ours.fabric_bandwidth_oneway_bytes_per_s / 2
    assert theirs.accelerator == ours.accelerator


@pytest.mark.parametrize(
    ("drop", "ask", "why"),
    [
        pytest.param("nothing", "accelerator", "no row achievable_matmul_bf16_frac; measure it", id="share"),
        pytest.param(
            "memory_bandwidth",
            "accelerator",
            r"accelerators\.csv:2: my-card has no row for memory_bandwidth",
            id="memory",
        ),
    ],
)
def test_a_device_that_lacks_a_number_says_which(tmp_path, drop, ask, why):
    share = ("my-card,achievable_matmul_bf16_frac,0.7,1,measured,https://a.org,2026,never,,",)
    rows = [r for r in (*CARD, *(share if drop != "nothing" else ())) if drop not in r]
    learner(tmp_path, "accelerators", *rows, columns=",alias")
    with pytest.raises(CatalogError, match=why):
        getattr(hardware, ask)("my-card", "bf16", [tmp_path])


def test_a_node_that_names_an_unknown_link_is_refused_with_its_line(tmp_path):
    rows = [row.replace("pcie-4-x16", "pcie-4-x61") for row in NODE]
    learner(
        tmp_path,
        "nodes",
        *(row.replace("my-card", "l4-24gb").replace(",yes", ",") for row in rows),
        columns=NODE_COLUMNS,
    )
    with pytest.raises(
        CatalogError, match=r"^nodes\.csv:2: node_link of my-box is 'pcie-4-x61'.*did you mean 'pcie-4-x16'"
    ):
        hardware.cluster("my-box", "bf16", [tmp_path])


def test_two_usual_nodes_are_refused(tmp_path):
    rows = [row.replace("my-card", "l4-24gb") for row in NODE]
    learner(tmp_path, "nodes", *rows, columns=NODE_COLUMNS)
    with pytest.raises(UnknownNameError, match="says of 2 nodes"):
        hardware.node_for("L4", extra=[tmp_path])
