"""The scale-out lab without a browser: what is drawn and how often, what it says when nothing can run, the search, the run of lab 1."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.course import ledger
from aiinfra_widgets.errors import ControlError, LabError, ModelInputError, SpecError, UnknownNameError
from aiinfra_widgets.quantities import quantity
from aiinfra_widgets.reports.results import save
from aiinfra_widgets.widgets.scale_out import BARS, ScaleOut
from aiinfra_widgets.widgets.scale_out_fields import FIRST, MOST, MY_RUN, NODES, ScaleOutFields, setup
from aiinfra_widgets.widgets.scale_out_figures import CHARTS, CHOSEN, SHADES, STACK, colour_of, columns
from aiinfra_widgets.widgets.scale_out_screen import ONLY_MODELS, STOPS
from aiinfra_widgets.widgets.scale_out_search import fields_of, node_counts
from aiinfra_widgets.widgets.scale_out_table import (
    carbon_t,
    counts_html,
    duration,
    energy_mwh,
    money,
    notes_html,
    percent,
    record_html,
)

SMALL = {
    "model": "gpt-7.5b",
    "accelerators": 512,
    "tp_size": 4,
    "pp_size": 1,
    "interleave": 1,
    "global_batch": 512,
    "seq_len": 2048,
}


@pytest.fixture
def lab(home: Path) -> ScaleOut:
    """One that nobody watches, with its own ledger."""
    return ScaleOut(**SMALL)


@pytest.fixture
def screen(lab: ScaleOut) -> Any:
    """Its screen, after the guess."""
    shown = lab._the_screen()
    lab.commit(0.2)
    return shown


class Sent:
    """Counts what goes to the browser.

    Args:
        live: Whose messages are counted.
    """

    def __init__(self, live: Any) -> None:
        self.messages: list[Any] = []
        live.send = lambda content, buffers=None: self.messages.append(content)


# --- what is asked ---------------------------------------------------------------------------------------------------
def test_few_sliders_are_in_sight_and_every_field_has_a_range() -> None:
    knobs = ScaleOutFields.knobs()
    assert [n for n in FIRST if knobs[n].kind != "choice"] == ["accelerators", "tp_size", "pp_size"]
    assert all(k.group for n, k in knobs.items() if n not in FIRST)
    assert all(k.help and k.label for k in knobs.values())
    assert not [n for n, k in knobs.items() if k.kind in {"int", "float"} and (k.low is None or k.high is None)]
    assert not [n for n, k in knobs.items() if k.kind == "choice" and k.default not in k.choices]
    assert set(BARS) <= {*STOPS["accelerators"]} <= {*range(8, MOST + 1)}


@pytest.mark.parametrize("node", NODES)
def test_every_machine_of_the_catalog_is_answered(node: str, home: Path) -> None:
    found = ScaleOut(**{**SMALL, "node": node})
    if found.problem:
        assert "has no peak rate in bf16" in found.problem
        found.set(precision="fp16" if "fp16" in found.problem.split("it has")[1] else "fp32")
    assert found.problem == ""
    sources = setup(found.state.fields).conditions.sources
    assert set(sources) == {"Failures", "Checkpoints", "Price", "Power", "Grid", "Manufacture"}
    assert all(sources.values())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({"modell": "gpt-2"}, "did you mean 'model'", id="misspelt"),
        pytest.param({"model": "gpt-7.5"}, "gpt-7.5b", id="near-model"),
        pytest.param({"tp_size": 0}, "a whole number from 1 to 64", id="range"),
        pytest.param({"pue": 0.9}, "a number from 1 to 3", id="pue"),
        pytest.param({"price_usd_per_hour": -1.0}, "a number from 0 to 100", id="negative-price"),
        pytest.param({"checkpoint_cost_s": "10 parsec"}, "cannot read '10 parsec'", id="unit"),
    ],
)
def test_wrong_fields_are_refused(values: dict[str, Any], says: str, home: Path) -> None:
    with pytest.raises(SpecError, match=says):
        ScaleOut(**values)


# --- the guess -------------------------------------------------------------------------------------------------------
def test_the_guess_is_kept_once_and_compared_with_the_setup_it_was_of(lab: ScaleOut) -> None:
    shown = lab._the_screen()
    assert shown.reveal.value == ""
    assert counts_html(lab.state.picture) not in shown.table.value, "no answer before the guess"
    shown.guess.value = "20 %"
    shown.act("commit")
    assert [(e["lab"], e["question"], e["value"]) for e in ledger.read()] == [("scale_out", "exposed_comm_frac", 0.2)]
    revealed = shown.reveal.value
    assert "20 %" in revealed
    assert "512 accelerators" in revealed
    lab.set(accelerators=4096)
    assert shown.reveal.value == revealed
    with pytest.raises(ControlError, match="start over"):
        lab.commit(0.3)
    shown.act("again")
    lab.commit(0.3)
    assert "4\u2009096 accelerators" in shown.reveal.value


@pytest.mark.parametrize("text", ["", "much", "120", "-3"])
def test_a_guess_that_is_none_is_told_in_place(text: str, lab: ScaleOut) -> None:
    shown = lab._the_screen()
    shown.guess.value = text
    shown.act("commit")
    assert "aiinfra-say-bad" in shown.guess_say.value
    assert lab.state.guess is None
    assert ledger.read() == []


# --- what is drawn ---------------------------------------------------------------------------------------------------
def test_a_move_computes_once_and_sends_one_message_for_each_group_of_figures(screen: Any, lab: ScaleOut) -> None:
    sent = [Sent(live) for live in (screen.charts, screen.record_charts)]
    computed, drawn = lab.state.computed, screen.drawn
    for moves, stages in enumerate((2, 4, 8), start=1):
        screen.fields["pp_size"].control.value = stages
        assert lab.state.computed == computed + moves
        assert screen.drawn == drawn + moves
        assert [len(s.messages) for s in sent] == [moves, moves]
    screen.fields["pp_size"].control.value = 8
    screen.draw()
    assert lab.state.computed == computed + 3, "nothing changed, so nothing is computed"


def test_bars_add_up_and_agree_with_the_table(lab: ScaleOut) -> None:
    picture = lab.state.picture
    assert picture is not None
    data = columns(picture)["parts"]
    bars, top = data["bars"], np.zeros(CHOSEN + 1)
    orange = 0.0
    for at, low, high, colour, part in zip(*(bars[c] for c in ("at", "bottom", "top", "colour", "part")), strict=True):
        assert low == pytest.approx(top[int(at)])
        top[int(at)] = high
        if part.startswith("Exposed") and at == CHOSEN:
            orange += high - low
            assert colour in SHADES.values()
    fits = picture.bars.used > 0
    assert top[fits] == pytest.approx(100)
    assert top[~fits] == pytest.approx(0)
    assert orange == pytest.approx(100 * picture.bars["exposed_comm_frac"][CHOSEN])
    in_legend = {quantity(p).label for p in STACK if len(data[p]["at"])}
    assert in_legend == set(bars["part"])


def test_parts_have_fixed_colours_of_their_own() -> None:
    colours = [colour_of(p) for p in STACK if p not in ("data_time_s", "optimizer_time_s")]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("name", CHARTS)
def test_every_figure_draws_with_and_without_data(name: str, lab: ScaleOut) -> None:
    assert CHARTS[name]({}).figure.renderers
    fig = lab.figure(name)
    assert fig.title.text
    assert fig.xaxis.axis_label
    assert fig.yaxis.axis_label
    lengths = {len(s.data_source.data["at"]) for s in fig.renderers}
    assert max(lengths) > 0


def test_published_runs_are_hollow_diamonds_with_their_source(lab: ScaleOut) -> None:
    fig = lab.figure("record")
    (rows,) = [r for r in fig.renderers if r.data_source.name == "published"]
    assert rows.glyph.marker == "diamond"
    assert rows.glyph.fill_color is None
    assert len(rows.data_source.data["source"]) == len(lab.state.picture.record) > 3  # type: ignore[union-attr]
    assert all(rows.data_source.data["source"])


def test_units_a_person_reads() -> None:
    assert duration(7.2e3) == "2 h"
    assert duration(86_400 * 78) == "78 days"
    assert duration(86_400 * 365.25 * 5.8) == "5.8 years"
    assert [money(v) for v in (0.05, 812, 45_000, 1.2e6, 3.4e9)] == ["$0.05", "$812", "$45 k", "$1.2 M", "$3.4 bn"]
    assert [energy_mwh(v) for v in (3.6e9, 3.6e9 * 24_060)] == ["1", "24\u2009100"]
    assert carbon_t(1.234e6) == "1.23"
    assert [percent(v) for v in (0.0, 1e-5, 0.1234)] == ["0 %", "< 0.1 %", "12.3 %"]


# --- what cannot be --------------------------------------------------------------------------------------------------
def test_a_plan_that_cannot_be_keeps_the_last_figure_greyed_and_says_what_is_allowed(
    screen: Any, lab: ScaleOut
) -> None:
    before = lab.state.picture
    sent = Sent(screen.charts)
    lab.set(tp_size=64)
    assert "tp_size 64 must divide the 32 heads" in lab.problem
    assert "take tp_size from 1, 2, 4" in screen.problem.value
    assert lab.state.picture is before
    assert all("aiinfra-stale" in box._dom_classes for box in screen.drawings)
    assert sent.messages == [], "the figures of the last plan stay as they are"
    lab.set(tp_size=8)
    assert lab.problem == ""
    assert screen.problem.value == ""
    assert not [b for b in screen.drawings if "aiinfra-stale" in b._dom_classes]


def test_a_setup_that_cannot_be_is_told_before_the_guess_and_can_be_mended(home: Path) -> None:
    found = ScaleOut(**{**SMALL, "tp_size": 64})
    shown = found._the_screen()
    assert "tp_size 64 must divide the 32 heads" in shown.problem.value
    shown.guess.value = "20"
    shown.act("commit")
    assert "nothing to guess yet" in shown.guess_say.value
    assert found.results()["status"] == "failed"
    with pytest.raises(UnknownNameError, match="nothing to draw"):
        found.figure("parts")
    shown.fields["tp_size"].control.value = 8
    shown.act("commit")
    assert found.state.guess == 0.2
    assert shown.problem.value == ""


def test_too_few_accelerators_are_told_and_what_one_replica_needs(lab: ScaleOut) -> None:
    lab.set(accelerators=8, pp_size=4)
    assert lab.problem == ""
    picture = lab.state.picture
    assert picture is not None
    assert "needs<br>16" in counts_html(picture)
    assert "8 accelerators are too few: one replica needs 16" in notes_html(picture)
    assert math.isnan(picture.bars["step_time_s"][CHOSEN])


def test_a_plan_that_does_not_fit_into_memory_is_marked(lab: ScaleOut) -> None:
    lab.set(model="llama-3.1-405b", tp_size=1, pp_size=1, zero_stage=0)
    picture = lab.state.picture
    assert picture is not None
    assert "does not fit" in notes_html(picture)
    assert "✕" in counts_html(picture)


def test_without_a_published_table_the_rest_is_there(home: Path, tmp_path: Path) -> None:
    found = ScaleOut(published=tmp_path / "none.csv", **SMALL)
    assert found.problem == ""
    assert "none.csv: cannot be read" in record_html(found.state.picture.record, found.state.no_record)  # type: ignore[union-attr]


# --- the search ------------------------------------------------------------------------------------------------------
def test_the_search_finds_plans_that_the_knobs_can_take(screen: Any, lab: ScaleOut) -> None:
    screen.act("search")
    assert lab.found is not None
    assert lab.found.choices
    assert lab.found.num_feasible <= lab.found.num_plans
    times = [c.step_time_s for c in lab.found.choices]
    assert times == sorted(times)
    assert len(screen.search_box.children) == 1 + len(times)
    for i, choice in enumerate(lab.found.choices):
        screen.search_box.children[i + 1].children[0].click()
        assert lab.problem == ""
        bars = lab.state.picture.bars  # type: ignore[union-attr]
        assert bars["step_time_s"][CHOSEN] == pytest.approx(choice.step_time_s), "as the search has said"
        assert {n: getattr(lab.state.fields, n) for n in fields_of(choice)} == fields_of(choice)
        assert screen.fields["tp_size"].control.value == choice.plan.tp_size


def test_round_numbers_of_nodes() -> None:
    assert node_counts(1) == [1]
    assert node_counts(13) == [7, 8, 9, 12, 13]
    assert node_counts(12_500)[-1] == 12_500


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"model": MY_RUN}, "choose a model of the catalog", id="a-run"),
        pytest.param({"node": "gb200-nvl72", "accelerators": 64}, "do not fill one gb200-nvl72 of 72", id="too-few"),
    ],
)
def test_a_search_that_makes_no_sense_says_why(changes: dict[str, Any], says: str, screen: Any, lab: ScaleOut) -> None:
    lab.set(**changes)
    with pytest.raises(ModelInputError, match=says):
        lab.search()
    screen.act("search")
    assert "aiinfra-say-bad" in screen.search_say.value
    with pytest.raises(UnknownNameError, match=r"call search\(\) first"):
        lab.use()


# --- the run of lab 1 ------------------------------------------------------------------------------------------------
def test_without_a_run_the_lab_says_where_to_get_one(lab: ScaleOut) -> None:
    lab.set(model=MY_RUN)
    assert "run lab 1 first" in lab.problem


def test_the_last_run_is_scaled_by_what_was_measured(
    recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path))  # where that run lies
    recorded.segment(nodes=2)
    recorded.steps(80, 0.01)
    recorded.end()
    found = ScaleOut(model=MY_RUN, accelerators=8, tokens=1e9)
    assert found.problem == ""
    bars = found.state.picture.bars  # type: ignore[union-attr]
    # measured: 2 nodes, 9 ms of arithmetic for 128 samples each; the batch stays, so 8 nodes take 32 each
    assert bars["compute_time_s"][CHOSEN] == pytest.approx(0.009 / 4)
    assert bars["data_time_s"][CHOSEN] == pytest.approx(0.001 / 4)
    assert bars.used.max() == 256
    assert bars.values["data_time_s"].method == "measured"
    shown = found._the_screen()
    found.commit(0.5)
    assert all(shown.fields[n].control.disabled for n in ONLY_MODELS)
    assert "digits-cnn" in shown.assumed.value
    found.set(model="gpt-7.5b")
    assert not shown.fields["tp_size"].control.disabled


# --- unattended ------------------------------------------------------------------------------------------------------
def test_results_are_plain_and_say_what_each_number_is_worth(lab: ScaleOut) -> None:
    lab.commit(0.25)
    lab.search()
    found = save(lab.results())
    assert found["status"] == "done"
    assert found["guess"] == {"quantity": "exposed_comm_frac", "value": 0.25}
    assert [c["accelerators"] for c in found["counts"]] == [*BARS, 512]
    chosen = next(c for c in found["counts"] if c["chosen"])["quantities"]
    assert 0 < chosen["exposed_comm_frac"]["value"] < 1
    assert {q["method"] for q in chosen.values()} == {"modelled", "assumed"}
    assert found["search"]["best"][0]["step_time_s"] > 0
    assert all(r["source"] for r in found["published"])


def test_parts_are_shown_by_name_only(lab: ScaleOut) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'record'"):
        lab.show("recrod")
    with pytest.raises(LabError, match="no figure"):
        lab.figure("table")
    for name in ("table", "record", "search", *CHARTS):
        lab.show(name)
