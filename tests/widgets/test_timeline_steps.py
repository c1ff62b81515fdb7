"""One step of a pipeline as bars: the newest whole one, its own segment's prediction below it, kinds by colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.core.validation import check_integrity
from bokeh.embed import json_item

from aiinfra_widgets.experiment import Timeline, experiment, experiment_names
from aiinfra_widgets.models.kinds import KINDS
from aiinfra_widgets.quantities import show
from aiinfra_widgets.runs.status import Status
from aiinfra_widgets.widgets import timeline, timeline_frame
from aiinfra_widgets.widgets.feed import Feed, Shown, Still
from aiinfra_widgets.widgets.figures import Axis, still
from aiinfra_widgets.widgets.state import Look
from aiinfra_widgets.widgets.theme import PARTS, dark

MS = Axis(1e3, "ms")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The experiment of `tests/runs/stages`, registered as any package may register one, for one test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "runs" / "stages"))
    for found in (experiment, experiment_names):
        found.cache_clear()
    import stages

    yield stages
    for found in (experiment, experiment_names):
        found.cache_clear()


@pytest.fixture
def run(stages: Any, tmp_path: Path) -> Any:
    return stages.RecordedStages(tmp_path, nodes=2, microbatches=3)


def drawn(run: Any) -> dict[str, Any]:
    reader = run.reader()
    declared = run.exp.timeline
    return timeline.columns(declared, reader.records("operations"), reader.segments(), 0.0, MS, going=True, tick="step")


def test_the_newest_step_that_every_rank_wrote_is_drawn(run: Any) -> None:
    run.segment()
    run.step(slower=3.0)
    whole = run.step(slower=1.2)
    run.step(slower=9.0, ranks=1)
    found = drawn(run)
    bars = found["bars"]
    assert len(bars["left"]) == len(whole.intervals)
    assert max(bars["right"]) == pytest.approx(whole.step_time_s * 1e3)
    predicted_s = max(found["ghosts"]["right"]) / 1e3
    took, expected = show("s", whole.step_time_s), show("s", predicted_s)
    assert found["caption"]["text"] == [f"Step 2 took {took}; predicted {expected}"]
    assert set(bars["place"]) == {"0", "1"}


def test_nothing_of_another_segment_is_mixed_in(run: Any) -> None:
    run.segment()
    run.step()
    run.segment(nodes=3, microbatches=6)
    before = drawn(run)
    assert len(before["bars"]["lane"]) == 0, "no step under this configuration yet"
    assert set(before["ghosts"]["place"]) == {"0", "1", "2"}
    assert before["caption"]["text"][0].startswith("Predicted: ")
    run.step()
    after = drawn(run)
    assert set(after["bars"]["place"]) == {"0", "1", "2"}
    assert {d for d in after["bars"]["detail"] if d != "none"} == {"0", "1", "2", "3", "4", "5"}


def test_predicted_bars_stand_below_measured_ones_and_lanes_do_not_touch(run: Any) -> None:
    run.segment()
    run.step()
    found = drawn(run)
    up, down = timeline_frame.MEASURED, timeline_frame.PREDICTED
    assert set(np.round(found["bars"]["lane"] - up[0], 9)) == {0.0, 1.0}
    assert set(np.round(found["ghosts"]["lane"] - down[0], 9)) == {0.0, 1.0}
    assert up[0] - up[1] / 2 > -0.5
    assert up[0] + up[1] / 2 < down[0] - down[1] / 2, "the first lane is on top: down is more"
    assert down[0] + down[1] / 2 < 0.5
    assert found["span"]["end"] < -0.5 < 1.5 < found["span"]["start"]


def test_a_bar_says_its_kind_its_micro_batch_and_what_was_predicted_of_it(run: Any) -> None:
    run.segment()
    real = run.step(slower=2.0)
    bars = drawn(run)["bars"]
    plan = run.exp.predict(run.spec, None).extra["operations"]
    for i, bar in zip(sorted(real.intervals, key=lambda x: x.start_s), zip(*bars.values(), strict=True), strict=True):
        one = dict(zip(bars, bar, strict=True))
        assert one["name"] == KINDS[int(i.kind)][0]
        if i.kind > 1:
            continue
        assert one["detail"] == str(i.microbatch)
        [k] = [
            k
            for k, key in enumerate(zip(plan["rank"], plan["kind"], plan["microbatch"], strict=True))
            if key == (i.rank, i.kind, i.microbatch)
        ]
        assert one["predicted"] == timeline_frame.stretch(plan["start_s"][k], plan["end_s"][k])
        assert one["measured"] == timeline_frame.stretch(i.start_s, i.end_s)
        assert one["ink"] == ("#ffffff" if dark(one["colour"]) else "#111111")
    texts = {(n, t) for n, t in zip(bars["name"], bars["text"], strict=True) if t}
    assert {n for n, _ in texts} <= {"Forward", "Backward"}
    assert {"0", "1", "2"} == {t for n, t in texts if n == "Backward"}


def test_kinds_of_one_part_are_shades_of_its_colour(stages: Any) -> None:
    declared = stages.Stages.timeline
    shades = dict(zip([n for n, _ in KINDS], timeline_frame.colours(declared), strict=True))
    assert len(set(shades.values())) == len(KINDS)
    assert shades["Backward"] != shades["Forward"]
    assert shades["Communication"] == PARTS["communication"]
    assert shades["Bubble"] == PARTS["bubble"]
    assert shades["Waiting"] == PARTS["wait"]
    blue = [int(shades[n][5:7], 16) for n in ("Forward", "Backward", "Update")]
    assert blue == sorted(blue, reverse=True), "from light to dark"


def test_the_figure_has_a_colour_and_a_key_for_each_kind(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    run.segment()
    run.step()
    found = drawn(run)
    chart = timeline.timeline_chart(run.exp.timeline, found, MS, "step")
    assert [k.text for k in chart.keys] == [
        "Forward",
        "Backward",
        "Communication",
        "Bubble",
        "Update",
        "Predicted (below)",
    ]
    figure = still(chart)
    assert figure.title.text == "Operations by rank"
    assert figure.xaxis.axis_label == "Time in the step (ms)"
    assert json_item(figure)["root_id"]
    check_integrity(figure.references())
    assert not caplog.records, "every column that is drawn is there"
    empty = timeline.timeline_chart(run.exp.timeline, {}, MS, "step")
    assert len(empty.keys) == len(KINDS) + 1, "a live figure has all keys, for anything may come"
    assert {s.name for s in empty.figure.select({"name": "bars"})} == {"bars"}
    assert "one step" in empty.empty


def test_a_live_feed_follows_the_run(run: Any) -> None:
    run.segment()
    run.step()
    reader = run.reader()
    prediction = reader.segments()[-1].prediction
    shown, sink = Shown(run.exp, prediction=prediction), Still()
    assert shown.time is not None
    assert shown.time.unit == "ms", "a step is drawn in the unit that suits it"
    feed = Feed(shown, sink, reader.machine)
    feed.pull(reader, look_at(reader, run.spec))
    chart = shown.chart("timeline", sink.data["timeline"])
    names = {s.name for s in chart.figure.select({"type": type(chart.figure.select_one({"name": "bars"}))})}
    assert set(sink.data["timeline"]) - {"span"} == names, "each source of the figure is fed, and no other"
    assert "Step 1 took" in sink.words["timeline"]
    run.step()
    reader.poll()
    feed.pull(reader, look_at(reader, run.spec, "done"))
    assert "Step 2 took" in sink.words["timeline"]


def look_at(reader: Any, spec: Any, state: Any = "running") -> Look:
    phase = "running" if state == "running" else "ended"
    more = {"latest": {k: dict(v) for k, v in reader.latest().items()}, "spec": spec}
    return Look(phase=phase, status=Status(state, ""), segments=reader.segments(), **more)  # type: ignore[arg-type]


def test_more_bars_than_can_be_seen_are_left_out_and_it_says_so(run: Any) -> None:
    run.segment(nodes=16, microbatches=64)
    run.step()
    found = drawn(run)
    assert len(found["bars"]["left"]) == timeline_frame.BARS
    assert f"the first {timeline_frame.BARS} intervals" in found["caption"]["text"][0]
    assert set(found["bars"]["text"]) == {""}, "no room for numbers in sixteen lanes"


def test_a_record_without_rows_and_a_prediction_without_intervals(run: Any) -> None:
    found = drawn(run)
    assert all(len(found[s]["lane"]) == 0 for s in ("bars", "ghosts"))
    assert found["caption"]["text"] == []
    assert np.isfinite(list(found["span"].values())).all()
    assert timeline.length_s(run.exp.timeline, None) == 0.0


def test_a_declaration_that_does_not_fit_together_is_refused() -> None:
    plain = ("r", "lane", "label", "start_s", "end_s", "Lane", "Bar")
    for more in (
        {"frame": "tick"},
        {"kinds": KINDS},
        {"detail": "d"},
        {"frame": "tick", "kinds": KINDS, "detail": "d"},
    ):
        with pytest.raises(ValueError, match="`frame` and `kinds` come together"):
            Timeline(*plain, **more)  # type: ignore[arg-type]
