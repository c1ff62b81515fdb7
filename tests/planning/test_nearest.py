"""Published runs: what a row stands for, by hand; which are near; and a table that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiinfra_widgets.errors import CatalogError, ModelInputError
from aiinfra_widgets.planning.nearest import (
    FAMILY,
    NEEDED,
    OTHER,
    PublishedRun,
    distance,
    flop_per_token,
    nearest,
    published_runs,
)

ROW = {
    "id": "a", "source": "Somebody 2021", "source_location": "Table 1", "kind": "perf", "model": "GPT", "params": "1e9",
    "layers": "24", "hidden": "2048", "seq": "2048", "vocab": "50000", "global_batch": "512", "accelerator": "A100-SXM4-80GB",
    "n_accel": "32", "precision": "bf16", "metric": "iter_time_s", "value": "10", "unit": "s", "ep": "", "group": "",
    "value_origin": "measured",
}  # fmt: skip
PER_TOKEN = 6e9 + 12 * 24 * 2048 * 2048


def peak(name: str, precision: str) -> float | None:
    return 312e12 if name.startswith("A100") and precision in {"bf16", "fp16"} else None


def table(folder: Path, *rows: dict[str, str], columns: tuple[str, ...] = NEEDED) -> Path:
    path = folder / "published.csv"
    lines = [",".join(columns), *(",".join({**ROW, **r}.get(c, "") for c in columns) for r in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_arithmetic_of_a_token() -> None:
    # Narayanan et al. 2021, equation 3 without recomputation: 72 s l h^2 (1 + s/6h + V/12lh) for a sequence
    layers, hidden, seq, vocab = 24, 2048, 2048, 51_200
    sequence = 72 * seq * layers * hidden**2 * (1 + seq / (6 * hidden) + vocab / (12 * layers * hidden))
    parameters = 12 * layers * hidden**2 + vocab * hidden
    assert flop_per_token(parameters, layers, hidden, seq) * seq == pytest.approx(sequence)


@pytest.mark.parametrize(
    ("change", "mfu"),
    [
        pytest.param({}, 512 * 2048 * PER_TOKEN / (10 * 32 * 312e12), id="iteration-time"),
        pytest.param({"metric": "tokens_per_s_per_accel", "value": "1000"}, 1000 * PER_TOKEN / 312e12, id="tokens"),
        pytest.param({"metric": "samples_per_s_total", "value": "16"}, 16 * 2048 * PER_TOKEN / (32 * 312e12), id="sequences"),
        pytest.param({"metric": "model_tflops_per_accel", "value": "156"}, 0.5, id="model-flops"),
        pytest.param({"metric": "mfu_pct", "value": "41", "accelerator": "unheard-of"}, 0.41, id="as-printed"),
        pytest.param({"accelerator": "unheard-of"}, None, id="no-peak"),
        pytest.param({"seq": ""}, None, id="no-sequence-length"),
        pytest.param({"global_batch": ""}, None, id="no-batch"),
    ],
)  # fmt: skip
def test_what_a_row_stands_for(change: dict[str, str], mfu: float | None, tmp_path: Path) -> None:
    (run,) = published_runs(peak, table(tmp_path, change))
    assert run.mfu == (None if mfu is None else pytest.approx(mfu))
    assert (run.source, run.place, run.accelerators) == ("Somebody 2021", "Table 1", 32)
    assert run.printed == f"{change.get('value', '10')} s"


def test_recomputed_arithmetic_is_taken_off(tmp_path: Path) -> None:
    # SC21 counts 96 s l h^2 (1 + s/6h + V/16lh) with the second forward pass: of that the model needs the 72 of above
    change = {"metric": "hw_tflops_per_accel", "value": "140", "params": "", "vocab": "51200"}
    (run,) = published_runs(peak, table(tmp_path, change))
    done = 96 * 24 * 2048**2 * (1 + 2048 / (6 * 2048) + 51_200 / (16 * 24 * 2048))
    needed = 72 * 24 * 2048**2 * (1 + 2048 / (6 * 2048) + 51_200 / (12 * 24 * 2048))
    assert run.mfu == pytest.approx(140 / 312 * needed / done)
    assert run.parameters == 12 * 24 * 2048**2 + 51_200 * 2048


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"kind": "energy"}, id="another-kind"),
        pytest.param({"metric": "images_per_s_total"}, id="another-metric"),
        pytest.param({"params": "", "layers": ""}, id="size-not-published"),
        pytest.param({"ep": "8"}, id="experts"),
        pytest.param({"model": "Llama-2-70B-LoRA"}, id="most-weights-frozen"),
    ],
)
def test_rows_that_do_not_belong(change: dict[str, str], tmp_path: Path) -> None:
    assert published_runs(peak, table(tmp_path, change)) == ()


def test_distance_by_hand() -> None:
    here = (1e9, 100, "A100-SXM4-80GB")
    assert distance(here, here) == 0
    assert distance(here, (1e10, 100, "A100-SXM4-80GB")) == pytest.approx(1)
    assert distance(here, (1e9, 100, "A100-SXM4-40GB")) == FAMILY
    assert distance(here, (1e12, 1_000_000, "H100-SXM5-80GB")) == pytest.approx((9 + 16 + OTHER**2) ** 0.5)
    assert distance(here, (3e9, 7, "H100")) == distance((3e9, 7, "H100"), here)
    with pytest.raises(ModelInputError, match="accelerators"):
        distance(here, (1e9, 0, "A100"))


def run(id_: str, parameters: float, **more: object) -> PublishedRun:
    values: dict[str, object] = {"source": id_, "group": id_, "mfu": 0.4, "origin": "measured", **more}
    return PublishedRun(
        id_, str(values["source"]), "", "m", parameters, "A100", 100, "bf16", "mfu_pct", "40 %", str(values["origin"]),
        str(values["group"]), values["mfu"],  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_nearest_come_first_one_of_each_run_and_few_of_a_source() -> None:
    runs = [
        run("far", 1e12), run("near", 2e9), run("here", 1e9), run("silent", 1e9, mfu=None),
        run("derived", 1e9, group="twin", origin="derived"), run("direct", 1e9, group="twin"),
        *(run(f"s{i}", 1e9, source="one", group=f"g{i}") for i in range(9)),
    ]  # fmt: skip
    found = nearest(runs, 1e9, 100, "A100", count=6, per_source=2)
    assert [r.id for r in found] == ["direct", "here", "s0", "s1", "near", "far"]
    assert [r.distance for r in found] == sorted(r.distance for r in found)
    assert nearest([], 1e9, 100, "A100") == []


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        pytest.param(
            [{}], tuple(c for c in NEEDED if c != "metric"), r"published.csv:1: no column metric", id="column"
        ),
        pytest.param([{}, {"value": "ten"}], NEEDED, r"published.csv:3: value is 'ten'", id="word"),
        pytest.param([{"n_accel": "-4"}], NEEDED, r"published.csv:2: n_accel is '-4'", id="negative"),
    ],
)
def test_a_table_that_is_none(rows: list[dict[str, str]], columns: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=says):
        published_runs(peak, table(tmp_path, *rows, columns=columns))


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nothing\.csv: cannot be read"):
        published_runs(peak, tmp_path / "nothing.csv")


def test_the_table_that_ships_is_read(repo: Path) -> None:
    from aiinfra_widgets.widgets.scale_out_fields import peak_flops

    runs = published_runs(peak_flops)
    assert len(runs) > 100
    assert all(r.source and r.place and r.printed for r in runs)
    assert all(0 < r.mfu < 1 for r in runs if r.mfu is not None)
