"""Bars in lanes: each interval once, what is open lasts until now, what was predicted behind, and never too many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bokeh.embed import json_item

from aiinfra_widgets.experiment import Experiment, Timeline
from aiinfra_widgets.quantities import Prediction
from aiinfra_widgets.runs.status import Status
from aiinfra_widgets.widgets import timeline
from aiinfra_widgets.widgets.feed import Feed, Shown, Still
from aiinfra_widgets.widgets.figures import Axis
from aiinfra_widgets.widgets.state import Look
from aiinfra_widgets.widgets.theme import LABELS, dark

SECONDS = Axis(1.0, "s")
TIMELINE = Timeline("trips", "carrier", "errand", "begin_s", "end_s", "Carrier", "Errand")
ORIGIN_S = 5000.0


def rows(*trips: tuple[float, ...]) -> pd.DataFrame:
    """Rows of the record: carrier, errand, begin, end; written 10 ms after they begin or end."""
    table = pd.DataFrame(trips, columns=["carrier", "errand", "begin_s", "end_s"], dtype=float)
    return table.assign(t_s=ORIGIN_S + 0.01 + np.fmax(table["begin_s"], table["end_s"]))


def drawn(table: pd.DataFrame, segments: Any = (), last_s: float = 0.0, going: bool = True) -> dict[str, Any]:
    return timeline.columns(TIMELINE, table, segments, last_s, SECONDS, going=going)


def predicted(exp: Experiment, **plan: list[float]) -> Any:
    class One:
        prediction = Prediction({}, extra={"trips": plan})
        spec, t_s = exp.spec.make({}), ORIGIN_S

    return [One()]


def test_the_later_row_of_an_interval_counts_and_what_is_open_lasts_until_now() -> None:
    found = drawn(rows((1, 7, 0.0, math.nan), (2, 8, 1.0, math.nan), (1, 7, 0.0, 2.0)), last_s=ORIGIN_S + 5.01)
    bars = found["bars"]
    assert [(b, e) for b, e in zip(bars["left"], bars["right"], strict=True)] == [(0.0, 2.0), (1.0, pytest.approx(5.0))]
    assert bars["measured"] == ["0 s to 2 s (2 s)", "since 1 s"]
    assert found["now"]["at"] == pytest.approx([5.0])
    assert len(drawn(rows((1, 7, 0.0, 2.0)), going=False)["now"]["at"]) == 0


def test_now_is_never_before_what_was_seen() -> None:
    assert drawn(rows((1, 7, 0.0, 9.0), (2, 8, 3.0, math.nan)), last_s=0.0)["bars"]["right"].tolist() == [9.0, 9.0]


def test_what_was_predicted_stands_behind_and_in_the_hover(errands: Experiment) -> None:
    plan = {"carrier": [1, 2, 1], "errand": [7, 8, 7], "begin_s": [0.5, 1.0, 4.0], "end_s": [2.5, 3.0, None]}
    found = drawn(rows((1, 7, 0.0, 2.0), (2, 9, 2.0, 3.0)), predicted(errands, **plan))
    assert found["ghosts"]["left"].tolist() == [0.5, 1.0], "an end that nobody knows is no bar"
    assert found["bars"]["predicted"] == ["500 ms to 2.5 s (2 s)", "not predicted"]
    assert found["ghosts"]["colour"][0] == found["bars"]["colour"][0], "an errand has one colour"
    assert "2 measured intervals, 2 predicted" in timeline.words(TIMELINE, found)
    assert timeline.length_s(TIMELINE, predicted(errands, **plan)[0].prediction) == 3.0
    assert timeline.length_s(TIMELINE, None) == 0.0


def test_only_the_newest_bars_are_drawn_and_it_says_so(errands: Experiment) -> None:
    many = timeline.BARS + 50
    table = rows(*[(1, i, i, i + 0.9) for i in range(many)])
    n = 2 * timeline.BARS
    plan = {"carrier": [1] * n, "errand": list(range(n)), "begin_s": list(range(n)), "end_s": [i + 1 for i in range(n)]}
    found = drawn(table, predicted(errands, **plan))
    assert len(found["bars"]["left"]) == timeline.BARS
    assert found["bars"]["left"][-1] == many - 1
    assert len(found["ghosts"]["left"]) == timeline.BARS
    assert found["ghosts"]["left"][0] >= found["bars"]["left"][0] - 1, "what was predicted for the past is left out too"
    [said] = found["left_out"]["text"]
    assert f"newest {timeline.BARS}" in said
    assert drawn(rows((1, 1, 0, 1)))["left_out"]["text"] == []


def test_a_bar_is_named_where_its_name_fits_and_readable_on_its_colour() -> None:
    bars = drawn(rows((1, 1234, 0.0, 0.01), (1, 5, 0.1, 8.0), (2, 6, 0.0, 10.0)))["bars"]
    assert bars["text"] == ["", "6", "5"]
    assert bars["ink"] == ["#ffffff" if dark(c) else "#111111" for c in bars["colour"]]
    assert {dark(c) for c in LABELS} == {True, False}
    crowd = drawn(rows(*[(lane, lane, 0.0, 9.0) for lane in range(timeline.WORDY_LANES + 1)]))["bars"]
    assert set(crowd["text"]) == {""}


def test_lanes_are_whole_rows_with_the_first_on_top() -> None:
    span = drawn(rows((1, 1, 0, 1), (4, 2, 0, 1)))["span"]
    assert span["start"] > 4.5
    assert span["end"] < 0.5
    empty = drawn(rows())
    assert len(empty["bars"]["left"]) == 0
    assert all(np.isfinite(v) for v in empty["span"].values())


def test_a_recorded_run_is_drawn_as_it_grows_and_where_its_configuration_changed(carried: Any) -> None:
    carried.segment()
    carried.trip(1, 0, 0.0)
    carried.watch(5)
    shown, still = Shown(carried.exp), Still()
    reader = carried.reader()
    feed = Feed(shown, still, reader.machine)
    feed.pull(reader, look_at(reader, carried))
    first = still.data["timeline"]
    assert first["bars"]["name"] == ["0"]
    assert len(first["ghosts"]["left"]) == 40, "the plan of the first segment"
    puts = len(still.data["timeline"]["ghosts"]["left"])
    assert puts
    carried.trip(1, 0, 0.0, 0.4)
    carried.segment(errands_per_s=8.0)
    carried.trip(2, 1, 0.5, 0.9)
    carried.watch(5)
    reader.poll()
    feed.pull(reader, look_at(reader, carried))
    assert still.data["timeline"]["bars"] is first["bars"], "drawn again too soon"
    feed.pull(reader, look_at(reader, carried, "done"))
    found = still.data["timeline"]
    assert found["bars"]["place"] == ["1", "2"]
    assert len(found["marks"]["tick"]) == 1
    assert found["now"]["at"].size == 0
    chart = shown.chart("timeline", found)
    assert chart.title == "Errands by carrier"
    assert json_item(chart.figure)["root_id"]
    assert "2 measured" in still.words["timeline"]


def look_at(reader: Any, carried: Any, state: Any = "running") -> Look:
    phase = "running" if state == "running" else "ended"
    more = {"latest": {k: dict(v) for k, v in reader.latest().items()}, "spec": carried.spec}
    return Look(phase=phase, status=Status(state, ""), segments=reader.segments(), **more)  # type: ignore[arg-type]


def test_an_experiment_without_intervals_has_no_timeline() -> None:
    from aiinfra_widgets.experiment import experiment

    assert "timeline" not in Shown(experiment("serving")).names
