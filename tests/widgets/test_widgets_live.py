"""What the browser is sent: one message a tick, doubles in one buffer, and everything again on hello."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bokeh.models import Scatter

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.widgets.feed import Feed, Shown, Still
from aiinfra_widgets.widgets.live import Live
from aiinfra_widgets.widgets.state import Look


class Wire(Live):
    """A live view whose messages are kept instead of sent."""

    def __init__(self, *args: Any) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        super().__init__(*args)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.sent.append((content, list(buffers or [])))


class Browser:
    """Does with messages what live.js does."""

    def __init__(self) -> None:
        self.sources: dict[tuple[str, str], dict[str, list[Any]]] = {}

    def take(self, messages: list[tuple[dict[str, Any], list[bytes]]]) -> Browser:
        for content, buffers in messages:
            numbers = np.frombuffer(buffers[0], "<f8") if buffers else np.array([])
            at = 0
            for update in content["updates"]:
                columns = {k: list(v) for k, v in update["text"].items()}
                for name, n in update["columns"]:
                    columns[name] = numbers[at : at + n].tolist()
                    at += n
                key = (update["chart"], update["source"])
                old = {} if update["reset"] else self.sources[key]
                self.sources[key] = {k: old.get(k, []) + v for k, v in columns.items()}
            assert at == len(numbers), "a number that no column owns"
        return self


@pytest.fixture
def shown() -> Shown:
    return Shown(experiment("training"))


def test_a_batch_is_one_message(shown: Shown) -> None:
    wire = Wire([shown.chart("loss")])
    with wire.batch():
        wire.put("loss", "series", {"tick": np.array([1.0]), "value": np.array([2.0])}, seen=True)
        wire.span("loss", 0.0, 1.0)
        wire.say("loss", "words")
    wire.span("loss", 0.0, 1.0)
    assert len(wire.sent) == 1, "nothing new was sent again"
    assert wire.sent[0][0]["ranges"] == {"loss": (0.0, 1.0)}


def test_the_figures_follow_a_run_exactly_and_come_back_on_hello(recorded: Any, shown: Shown) -> None:
    wire = Wire([shown.chart(n) for n in shown.names])
    feed, reader = Feed(shown, wire, recorded.reader().machine), recorded.reader()
    browser = Browser()
    for nodes, count in ((1, 700), (2, 700), (1, 30)):
        recorded.segment(nodes=nodes)
        for _ in range(count // 10):
            recorded.steps(10)
            reader.poll()
            with wire.batch():
                feed.follow(reader, Look(spec=recorded.spec, segments=reader.segments()))
    live = browser.take(wire.sent).sources
    parts = live["parts", "series"]
    assert len(parts["tick"]) < 600
    assert parts["tick"] == sorted(set(parts["tick"]))
    total = sum(np.array(parts[p]) for p in shown.exp.parts)
    assert total == pytest.approx(np.array(parts["step_time_s"]))
    assert parts["step_time_s"][0] == pytest.approx(10.0), "drawn in milliseconds"
    assert live["parts", "marks"]["tick"] == [0, 700, 1400]

    wire.sent.clear()
    wire._said(wire, {"type": "hello"}, [])
    assert len(wire.sent) == 1
    assert Browser().take(wire.sent).sources == live, "a page that is opened later sees something else"


def test_gaps_stay_gaps_and_a_value_between_two_is_seen(carried: Any) -> None:
    carried.segment()
    shown, still = Shown(carried.exp, {"errand_wait_s": 0.1}), Still()
    reader = carried.reader()
    feed = Feed(shown, still, reader.machine)
    carried.watch(3)
    take(feed, reader, carried)
    chart = still.data["errand_wait_s"]
    assert np.isnan(chart["series"]["value"]).all()
    assert "errand_wait_s" not in still.seen, "a figure without a value is empty"
    for wait_s in (0.2, float("nan"), 0.3, 0.4):
        carried.watch(1, wait_s)
        take(feed, reader, carried)
    assert chart["series"]["value"][3:].tolist() == pytest.approx([200.0, np.nan, 300.0, 400.0], nan_ok=True)
    assert "errand_wait_s" in still.seen
    busy = still.data["carrier_busy_frac"]
    assert busy["series"]["value"].tolist() == pytest.approx([37.5] * 7), "the mean of the nodes that report it"
    assert busy["span"]["end"] == 92.0, "what was predicted is inside"
    drawn = shown.chart("errand_wait_s", chart).figure.renderers
    [points] = [r for r in drawn if isinstance(r.glyph, Scatter) and r.data_source.name == "series"]
    assert points.visible, "a value between two gaps is in no line: it must be a point"


def take(feed: Feed, reader: Any, carried: Any) -> None:
    reader.poll()
    feed.pull(reader, Look(spec=carried.spec, segments=reader.segments()))


def test_a_derived_quantity_gets_the_time_that_its_ticks_took(carried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed: list[float] = []
    monkeypatch.setattr(
        type(carried.exp), "derive", lambda self, s, m, v, elapsed_s: (elapsed.append(elapsed_s), {})[1]
    )
    monkeypatch.setattr(type(carried.exp), "live_series", ("energy_per_errand_j", "energy_j"))
    carried.segment()
    feed, reader = Feed(Shown(carried.exp), Still(), carried.reader().machine), carried.reader()
    for _ in range(3):
        carried.watch(20)
        reader.poll()
        segments = reader.segments()
        begun = feed._last_s or segments[0].t_s
        elapsed.clear()
        feed._rows(reader.ticks.iloc[feed._seen_rows :], segments)
        feed._seen_rows = len(reader.ticks)
        took = float(reader.ticks["t_s"].iloc[-1]) - begun
        assert sum(elapsed) == pytest.approx(2 * took), "for each of two quantities, all of the time and no more"


def test_a_report_shows_what_the_page_shows(recorded: Any, shown: Shown) -> None:
    recorded.segment()
    recorded.steps(40)
    reader = recorded.reader()
    wire, still = Wire([shown.chart(n) for n in shown.names]), Still()
    for sink in (wire, still):
        Feed(shown, sink, reader.machine).pull(reader, Look(spec=recorded.spec, segments=reader.segments()))
    live = Browser().take(wire.sent).sources
    for (chart, source), columns in live.items():
        assert {k: list(v) for k, v in still.data[chart][source].items()} == columns
    figure = shown.chart("parts", still.data["parts"]).figure
    assert len(figure.select_one({"name": "series"}).data["tick"]) == 40


def test_another_run_begins_with_empty_figures(recorded: Any, shown: Shown, tmp_path: Any) -> None:
    recorded.segment()
    recorded.steps(40)
    wire = Wire([shown.chart(n) for n in shown.names])
    reader = recorded.reader()
    feed = Feed(shown, wire, reader.machine)
    feed.follow(reader, Look(spec=recorded.spec, segments=reader.segments()))
    other = type(recorded)(tmp_path / "other")
    feed.follow(other.reader(), Look(spec=other.spec))
    assert Browser().take(wire.sent).sources["parts", "series"]["tick"] == []


def test_bokehjs_is_sent_when_asked_for_and_only_then(shown: Shown) -> None:
    wire = Wire([shown.chart("loss")])
    assert wire.sent == []
    wire._said(wire, {"type": "need-bokehjs"}, [])
    [(content, _)] = wire.sent
    assert content["type"] == "bokehjs"
    assert len(content["code"]) > 100_000
