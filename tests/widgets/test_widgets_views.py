"""Tables, tiles, meters and words from a recorded run; and nothing that a person typed becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.comparison import compare
from aiinfra_widgets.course import ledger
from aiinfra_widgets.errors import StorageError
from aiinfra_widgets.quantities import Prediction, Value, show
from aiinfra_widgets.runs.reader import Segment
from aiinfra_widgets.runs.status import Status, status
from aiinfra_widgets.widgets import header
from aiinfra_widgets.widgets.compare import comparison_html, detail_html
from aiinfra_widgets.widgets.figures import Axis
from aiinfra_widgets.widgets.meters import glance_html, meters_table_html, rate, total
from aiinfra_widgets.widgets.plotdata import predicted
from aiinfra_widgets.widgets.ranks import ranks_html, state_of
from aiinfra_widgets.widgets.state import Look
from aiinfra_widgets.widgets.words import difference

BAD = "<script>alert(1)</script>"


def settled(recorded: Any, step_s: float = 0.01) -> Segment:
    recorded.segment()
    recorded.steps(40, step_s)
    return recorded.reader().segments()[-1]


def with_prediction(segment: Segment, value: float, low: float, high: float) -> Segment:
    value_ = Value("step_time_s", value, low, high)
    return replace(segment, prediction=Prediction({"step_time_s": value_}), refused="")


@pytest.mark.parametrize(
    ("value", "low", "high", "says", "error"),
    [
        pytest.param(0.009, 0.008, 0.011, "within the band", "\u221210%", id="band"),
        pytest.param(0.0115, 0.0112, 0.012, "close", "+15%", id="close"),
        pytest.param(0.02, 0.019, 0.021, "off", "+100%", id="off"),
        pytest.param(1.0, 0.9, 1.1, "off", "100\u00d7", id="far-off-is-a-factor"),
    ],
)
def test_a_row_says_how_far_off(recorded: Any, value: float, low: float, high: float, says: str, error: str) -> None:
    exp, segment = recorded.exp, settled(recorded)
    html = comparison_html(exp, [compare(exp, with_prediction(segment, value, low, high))], guess=0.008)
    assert says in html
    assert error in html
    assert "you: 8 ms (\u221220%)" in html
    assert "10 ms" in html


def test_a_short_segment_is_not_compared(recorded: Any) -> None:
    recorded.segment()
    recorded.steps(3)
    [segment] = recorded.reader().segments()
    assert "too short to compare" in comparison_html(recorded.exp, [compare(recorded.exp, segment)])
    assert "15 steps" in detail_html(recorded.exp, [compare(recorded.exp, segment)])


def test_a_refusal_is_calm_and_says_what_to_do(recorded: Any) -> None:
    segment = replace(settled(recorded), prediction=None, refused="no 'matmul' probe; run: aiinfra calibrate")
    html = detail_html(recorded.exp, [compare(recorded.exp, segment)])
    assert "aiinfra calibrate" in html
    assert "measurement does not need it" in html


def test_the_tiles_say_who_works(recorded: Any) -> None:
    look = Look(
        phase="running",
        status=Status("running", ""),
        nodes=(0, 1, 2),
        members=(0,),
        lost=(2,),
        latest={0: {"tick": 5, "compute_time_s": 0.004}},
    )
    assert [state_of(look, n) for n in (0, 1, 2)] == ["working", "idle", "lost"]
    html = ranks_html(recorded.exp, look)
    assert "step 5" in html
    assert "4 ms" in html
    assert "1 of 3 ranks" in html
    many = replace(look, nodes=tuple(range(64)), members=tuple(range(64)), lost=())
    assert "aiinfra-small" in ranks_html(recorded.exp, many)


def test_nodes_report_different_things_and_the_one_that_coordinates_is_named(carried: Any) -> None:
    carried.segment()
    carried.watch(3)
    latest = carried.reader().latest()
    look = Look(phase="running", status=Status("running", ""), nodes=(0, 1, 2, 3), members=(0, 1, 2), latest=latest)
    html = ranks_html(carried.exp, look)
    desk, first, second, idle = html.split('role="listitem"')[1:]
    assert "coordinator" in desk
    assert "Waiting 1" in desk
    assert "Busy" not in desk
    assert html.count("coordinator</span>") == 1
    assert "Busy 25 %" in first
    assert "width:50.00%" in second
    assert "idle" in idle
    assert "node 2: working, watch 3, Busy 50 %" in second
    assert "what it reports" in ranks_html(carried.exp, Look())


def test_what_one_of_something_costs_is_found_by_its_name(carried: Any) -> None:
    segment = settled_errands(carried)
    assert rate([segment], "energy_j") == "1.25 J per errand"
    assert rate([segment], "cost_usd") == ""
    assert rate([], "energy_j") == ""
    assert "1.25 J per errand" in glance_html(carried.exp, Look(segments=[segment]))
    assert "1.25 J per errand" in meters_table_html([segment])


def settled_errands(carried: Any) -> Segment:
    carried.segment()
    carried.watch(30)
    return replace(
        carried.reader().segments()[-1],
        values={
            "energy_j": Value("energy_j", 3.0, method="assumed"),
            "energy_per_errand_j": Value("energy_per_errand_j", 1.25, method="assumed"),
        },
    )


def test_the_words_are_those_of_the_experiment(carried: Any) -> None:
    segment = settled_errands(carried)
    html = comparison_html(carried.exp, [compare(carried.exp, segment)])
    assert "Watches" in html
    assert "Response time by segment" in html
    assert "2 carriers" in html
    short = replace(segment, transient=True)
    assert "25 watches" in detail_html(carried.exp, [compare(carried.exp, short)])
    assert compare(carried.exp, segment).causes == (), "an experiment without parts has none that agree"


def test_meters_add_up_and_carry_the_weakest_provenance(recorded: Any) -> None:
    segment = settled(recorded)
    counted = replace(segment, values={"energy_j": Value("energy_j", 2.0, method="measured", how="counter")})
    modelled = replace(segment, values={"energy_j": Value("energy_j", 3.0, method="modelled", how="model")})
    found = total([counted, modelled], "energy_j")
    assert found is not None
    assert (found.value, found.method) == (5.0, "modelled")
    html = glance_html(recorded.exp, Look(segments=[counted, modelled]))
    assert "5 J" in html
    assert html.count("not known") == 2
    assert meters_table_html([counted, modelled]).count("not known") == 2
    zero = replace(segment, values={"energy_j": Value("energy_j", 0.0, method="measured")})
    assert "0 J" in glance_html(recorded.exp, Look(segments=[zero])), "a measured zero is not 'not known'"


def test_at_a_glance_stand_both_sides_their_difference_its_cause_and_what_it_cost(recorded: Any) -> None:
    found = with_prediction(settled(recorded), 0.02, 0.018, 0.022)
    look = Look(segments=[found], comparisons=[compare(recorded.exp, found)])
    html = glance_html(recorded.exp, look)
    assert re.findall(r"<b[^>]*>([^<]+)</b>", html)[:4] == ["20 ms", "10 ms", "+100%, off", show("s", found.elapsed_s)]
    assert "18 ms to 22 ms" in html
    assert look.comparisons[0].causes[0] in unescape(html)
    methods = re.findall(r'aiinfra-tag"[^>]*>(\w+)<', html)
    assert methods[:3] == ["modelled", "measured", "measured"], "each number says where it comes from"
    short = replace(found, transient=True, ticks=3)
    settling = glance_html(recorded.exp, Look(segments=[short], comparisons=[compare(recorded.exp, short)]))
    assert "3 of the 15 steps that a comparison needs" in settling
    assert glance_html(recorded.exp, Look()) == "", "before a run there is nothing to see at a glance"


def test_a_price_of_next_to_nothing_is_told_for_a_million(recorded: Any) -> None:
    cheap = replace(
        settled(recorded), values={"cost_per_step_usd": Value("cost_per_step_usd", 2.9e-7, method="assumed")}
    )
    assert rate([cheap], "cost_usd") == "$0.29 per million steps"


def test_nothing_that_was_typed_becomes_markup(recorded: Any) -> None:
    look = Look(status=Status("failed", BAD, next_step=BAD), traceback=BAD, note=BAD)
    segment = replace(settled(recorded), prediction=None, refused=BAD)
    pages = [
        header.header_html(recorded.exp, look, BAD), header.failure_html(look), header.reveal_html(recorded.exp, 1.0, None, BAD),
        detail_html(recorded.exp, [compare(recorded.exp, segment)]),
    ]  # fmt: skip
    assert [p for p in pages if "<script" in p] == []
    assert all("&lt;script" in p for p in pages)


def test_every_state_has_a_word_and_a_next_step(recorded: Any) -> None:
    for state in (
        "new",
        "starting",
        "running",
        "paused",
        "stalled",
        "degraded",
        "done",
        "stopped",
        "failed",
        "interrupted",
    ):
        for can_resume in (True, False):
            look = Look(phase="ended", status=Status(state, "message"), can_resume=can_resume)
            assert len(header.next_step(recorded.exp, look)) > 10
            assert state in header.header_html(recorded.exp, look)
    assert "commit" in header.next_step(recorded.exp, Look())


def test_what_to_do_next_fits_what_can_be_done(recorded: Any) -> None:
    def step(state: str, **more: Any) -> str:
        return header.next_step(recorded.exp, Look(phase="ended", status=Status(state, "message"), **more))

    assert "Resume run" in step("stopped", can_resume=True)
    assert "Resume" not in step("stopped"), "a way that is closed is not shown"
    assert "Read below" in step("failed", traceback="ValueError")
    assert "Resume run" in step("failed", traceback="ValueError", can_resume=True)
    recorded.segment()
    recorded.steps(3)
    reader = recorded.reader()
    recorded.run.path.rename(recorded.run.path.with_name("elsewhere"))
    gone = status(reader)
    assert "trash" in header.next_step(recorded.exp, Look(phase="ended", status=gone)), gone.message


def test_what_changed_is_said_in_words(recorded: Any) -> None:
    spec = recorded.spec
    assert difference(None, spec) == "1 node"
    assert difference(spec, spec.changed({"nodes": 2})) == "2 nodes"
    assert difference(spec, spec.changed({"link_latency_s": 0.002})) == "Link latency 2 ms"
    assert difference(spec, spec.changed({"overlap": True})) == "Overlap on"


def test_a_prediction_holds_for_its_segment(recorded: Any) -> None:
    recorded.segment()
    recorded.steps(40)
    recorded.segment(nodes=2)
    recorded.steps(20)
    first, second = recorded.reader().segments()
    lines = predicted([with_prediction(first, 0.01, 0.009, 0.012), second], "step_time_s", Axis(1e3, "ms"), 60)
    assert lines["left"].tolist() == [0]
    assert lines["right"].tolist() == [40]
    assert lines["high"].tolist() == [12]


def test_the_ledger_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.jsonl"
    entry = ledger.commit("training", "step_time_s", 0.008, {"nodes": 1}, path)
    before = path.read_bytes()
    ledger.settle(entry, "run-1", 0.01, path)
    ledger.settle("of somebody else", "run-2", 0.5, path)
    assert path.read_bytes().startswith(before)
    with path.open("ab") as file:
        file.write(b'{"torn')
    [found] = ledger.read(path)
    assert (found["value"], found["run"], found["measured"]) == (0.008, "run-1", 0.01)


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="AIINFRA_HOME"):
        ledger.commit("training", "step_time_s", 1.0, {}, tmp_path / "file" / "ledger.jsonl")
