"""Setups side by side, and quantities that a lab watches; nothing that is zero everywhere takes room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.comparison import compare
from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.widgets.compare import detail_html, watched_html
from aiinfra_widgets.widgets.feed import Shown
from aiinfra_widgets.widgets.figures import still
from aiinfra_widgets.widgets.lab import Lab
from aiinfra_widgets.widgets.screen import together
from aiinfra_widgets.widgets.variants import Variants, apart, end_of
from aiinfra_widgets.widgets.variants_view import tiny


@pytest.fixture
def lab(home: Path) -> Lab:
    return Lab("training", nodes=2, tp_size=2, workload="gpt-char", global_batch=8)


def test_each_setup_starts_from_the_labs_own(lab: Lab) -> None:
    variants = Variants(lab, ["", "tp_size=1", "tp_size=1 cp_size=2"], steps=30).variants
    assert [v.name for v in variants] == ["As set above", "Tensor parallel 1", "Tensor parallel 1, Context parallel 2"]
    assert [(v.spec.nodes, v.spec.tp_size, v.spec.cp_size, v.spec.steps) for v in variants] == [
        (2, 2, 1, 30), (2, 1, 1, 30), (2, 1, 2, 30),
    ]  # fmt: skip


def test_a_setup_that_is_not_allowed_keeps_its_row_and_says_why(lab: Lab) -> None:
    found = Variants(lab, ["", "nodes=1"])
    assert "cannot be cut into tp_size 2" in found.variants[1].problem
    assert found.results()[1]["problem"] == found.variants[1].problem
    assert "cannot be cut into tp_size 2" in found.table_html()


@pytest.mark.parametrize(
    ("setups", "says"),
    [([], "1 to 7"), ([""] * 8, "1 to 7"), (["step=3 nodes=1"], "fields only"), (["stop"], "fields only")],
)  # fmt: skip
def test_what_is_no_setup_is_refused(lab: Lab, setups: list[str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Variants(lab, setups)


def test_what_goes_only_together_is_asked_together() -> None:
    asked: list[dict[str, Any]] = []
    spec = experiment("training").spec.make({"nodes": 2, "pp_size": 2, "num_microbatches": 4})

    def ask(changes: dict[str, Any]) -> None:
        spec.changed(changes, live_only=False)
        asked.append(changes)

    wished: dict[str, Any] = {}
    with pytest.raises(SpecError, match="chunks"):
        together(wished, "schedule", "interleaved", ask)
    together(wished, "recompute", True, ask)  # the wish needs more than that
    together(wished, "chunks", 2, ask)
    assert asked == [{"recompute": True}, {"schedule": "interleaved", "chunks": 2}]
    assert wished == {}


def test_how_far_two_curves_lie_apart() -> None:
    first = np.array([4.0, 2.0, 1.0])
    assert apart(first, first) == 0
    assert apart(np.array([4.0, 2.2]), first) == pytest.approx(0.1)
    assert apart(np.empty(0), first) is None
    assert end_of(np.arange(20.0)) == 18.5
    assert end_of(np.array([np.nan, 3.0])) == 3
    assert end_of(np.empty(0)) is None


@pytest.mark.parametrize(
    ("share", "says"), [(None, "\u2013"), (0.0, "equal"), (0.25, "25 %"), (0.004, "0.4 %"), (2e-7, "2\u00b710<sup>\u22127</sup>")]
)  # fmt: skip
def test_a_share_that_may_be_tiny(share: float | None, says: str) -> None:
    assert tiny(share) == says


def test_a_part_that_is_zero_everywhere_is_neither_in_the_legend_nor_in_the_table(recorded: Any) -> None:
    exp = experiment("training")
    parts = {p: [0.0, 0.0] for p in exp.parts} | {"compute_time_s": [1.0, 2.0]}
    chart = Shown(exp).chart("parts", {"series": {"tick": [1, 2], "step_time_s": [1.0, 2.0], **parts}})
    [legend] = still(chart).legend
    assert [item.label.value for item in legend.items] == ["Compute"]
    recorded.segment()
    recorded.steps(40)
    html = detail_html(exp, [compare(exp, s) for s in recorded.reader().segments()])
    assert "Compute" in html
    assert "Waiting for the slowest" not in html


def test_a_curve_of_gaps_is_one_line_in_a_report() -> None:
    chart = Shown(experiment("training")).chart(
        "speedup", {"model": {"at": [1, 2], "value": [np.nan] * 2, "low": [0, 0], "high": [0, 0]}}
    )
    figure = still(chart)
    assert "nothing to draw" in figure.title.text
    assert (figure.x_range.start, figure.x_range.end) == (0, 1)


def test_a_watched_quantity_has_a_column_and_a_row_for_each_segment(recorded: Any) -> None:
    recorded.segment()
    recorded.steps(40)
    recorded.segment(nodes=2)
    recorded.steps(40)
    found = [compare(recorded.exp, s) for s in recorded.reader().segments()]
    html = watched_html(recorded.exp, found, ["data_time_s", "sent_bytes"])
    assert html.count("<tr>") == 3
    assert html.index("2 nodes") < html.index("1 node<")
    assert "1 ms" in html
    assert watched_html(recorded.exp, found, []) == ""
