import csv
from statistics import mean

import pytest

from aiinfra_widgets.machine.catalog import data_folder
from aiinfra_widgets.validation.inference_rows import METRIC, predict_inference_row

ROW = {
    "metric": METRIC,
    "source": "somebody",
    "model": "Qwen/Qwen3-8B",
    "accelerator": "H100-SXM5-80GB",
    "n_accel": "1",
    "precision": "bfloat16",
    "notes": "INFERENCE (vLLM); avg batch 64.0; avg output len 650; max_num_seqs 64",
}


@pytest.fixture(scope="module")
def rows():
    with (data_folder() / "published.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["metric"] == METRIC]


def test_shipped_rows(rows):
    # Time of a step: 9.0 % when this was written, H100 5 %, B200 14 %.
    off = {row["id"]: float(row["value"]) / predict_inference_row(row)[0] - 1 for row in rows}
    assert len(off) >= 19
    assert mean(map(abs, off.values())) < 0.10
    assert mean(abs(e) for name, e in off.items() if "H100" in name) < 0.06


def test_throughput_grows_with_the_batch_less_than_in_proportion():
    batches = [8, 16, 64, 256]
    rates = [predict_inference_row(ROW | {"notes": f"avg batch {b}; avg output len 650"})[0] for b in batches]
    assert rates == sorted(rates)
    assert rates[-1] / rates[0] < 256 / 8


def test_more_devices_are_faster_but_not_as_many_times():
    one, four = (predict_inference_row(ROW | {"n_accel": n})[0] for n in ("1", "4"))
    assert one < four < 4 * one


def test_the_published_value_is_not_read():
    assert predict_inference_row(ROW | {"value": "1"}) == predict_inference_row(ROW | {"value": "1e9"})


@pytest.mark.parametrize(
    ("over", "says"),
    [
        pytest.param({"metric": "iter_time_s"}, METRIC, id="another-metric"),
        pytest.param({"notes": "avg batch 8"}, "avg output len", id="no-length"),
        pytest.param({"notes": "avg batch 0.5; avg output len 5"}, "avg batch", id="no-batch"),
        pytest.param({"n_accel": ""}, "number of devices", id="no-count"),
        pytest.param({"n_accel": "3"}, "divisor of its 32 heads", id="three-devices"),
        pytest.param({"n_accel": "16"}, "within one node", id="two-nodes"),
        pytest.param({"precision": "fp8"}, "16-bit", id="eight-bits"),
        pytest.param({"model": "Qwen/Qwen3-8000B"}, "Qwen/Qwen3-8000B", id="unknown-model"),
        pytest.param({"accelerator": "H1000"}, "H1000", id="unknown-device"),
        pytest.param({"precision": "b16"}, "b16", id="unknown-precision"),
    ],
)
def test_refusals(over, says):
    predicted, reason = predict_inference_row(ROW | over)
    assert predicted is None
    assert says in reason
