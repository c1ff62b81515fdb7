"""Controls are made from the Spec: every field has one, shows exactly what it holds, and says what is wrong in place."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.experiment import Knob, experiment, experiment_names
from aiinfra_widgets.widgets.controls import Field, blame, control_of, steps, stride, typed

KNOBS = experiment("training").spec.knobs()
EXPERIMENTS = [experiment(name) for name in experiment_names()]


def field(name: str, heard: list[Any] | None = None, **more: Any) -> Field:
    knob = KNOBS[name]
    return Field(knob, knob.default, lambda _, value: (heard if heard is not None else []).append(value), **more)


@pytest.mark.parametrize("name", KNOBS)
def test_every_field_shows_its_default_and_gives_it_back(name: str) -> None:
    heard: list[Any] = []
    found = field(name, heard)
    assert found.value() == KNOBS[name].default
    assert type(found.value()) is type(KNOBS[name].default)
    assert KNOBS[name].help in found.control.tooltip
    found.set(KNOBS[name].default)
    assert heard == [], "setting a control spoke back"


def test_the_thread_that_draws_does_not_undo_a_move_that_is_being_handled() -> None:
    shown: list[Any] = []

    def asked(found: Field, value: Any) -> None:
        follower = Thread(target=found.set, args=(1,))  # the run still has one node
        follower.start()
        follower.join()
        shown.append((value, found.control.value))

    found = Field(KNOBS["nodes"], 1, asked, most=4)
    found.control.value = 2
    assert shown == [(2, 2)]
    found.set(1)  # handled: from now on the field follows the run again
    assert (found.control.value, len(shown)) == (1, 1)


@pytest.mark.parametrize("name", [n for n, k in KNOBS.items() if k.unit])
@given(value=st.floats(0, 1e12))
def test_what_is_typed_for_a_person_reads_back_exactly(name: str, value: float) -> None:
    knob = KNOBS[name]
    value = float(f"{value:.12g}")
    if knob.kind == "int":
        value = int(value)
    assert knob.parse(typed(knob, value)) == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize("name", [n for e in EXPERIMENTS for n in e.spec.knobs()])
def test_a_slider_comes_back_to_its_default(name: str) -> None:
    for knob in [k for e in EXPERIMENTS for k in e.spec.knobs().values() if k.name == name]:
        if control_of(knob, knob.high) == "slider":
            step = stride(knob, knob.low or 0.0, knob.high or 0.0)
            places = (knob.default - (knob.low or 0.0)) / step
            assert places == pytest.approx(round(places), abs=1e-6)


def test_a_slider_gives_the_number_that_was_meant() -> None:
    heard: list[float] = []
    field("momentum", heard).control.value = 0.6000000000000001
    assert heard == [0.6]


def test_a_change_is_heard_once_in_the_type_of_the_spec() -> None:
    heard: list[Any] = []
    latency = field("link_latency_s", heard)
    latency.control.value = "2 ms"
    assert heard == [pytest.approx(0.002)]
    batch = field("global_batch", heard := [])
    batch.control.value = 512
    assert heard == [512]
    assert type(heard[0]) is int


def test_what_cannot_be_read_is_said_under_the_field_and_goes_no_further() -> None:
    heard: list[Any] = []
    found = field("link_latency_s", heard)
    found.control.value = "two <b>moons</b>"
    assert heard == []
    assert "allowed: a number from 0 to 0.1 s" in found.message.value
    assert "<b>moons" not in found.message.value
    assert found.message.layout.display == ""


def test_lines_of_an_error_find_their_fields() -> None:
    fields = {n: field(n) for n in ("nodes", "steps")}
    rest = blame(fields, "nodes: got 0; allowed: 1 to 512\nworkload: got 'x'; allowed: y")
    assert "got 0" in fields["nodes"].message.value
    assert fields["steps"].message.value == ""
    assert rest.startswith("workload")


def test_a_slider_ends_where_the_machine_does() -> None:
    assert field("nodes", most=8).control.max == 8
    found = field("nodes", most=4)
    found.set(6)  # set from elsewhere, beyond the slider
    assert found.value() == 6


def test_a_logarithmic_slider_takes_a_value_between_its_stops() -> None:
    found = field("global_batch")
    found.set(300)
    assert found.value() == 300
    labels = [float(v) for _, v in found.control.options]
    assert labels == sorted(labels)


@given(st.integers(1, 50), st.integers(51, 10**7))
def test_stops_are_ordered_within_range_and_hold_both_ends(low: int, high: int) -> None:
    found = steps(low, high, 51, whole=True)
    assert found == sorted(set(found))
    assert found[0] == low
    assert found[-1] == high
    assert 51 in found
    assert all(isinstance(s, int) for s in found)


def test_a_choice_is_not_a_slider() -> None:
    knob = Knob("c", "C", "choice", "b", "help", "", None, None, ("a", "b"), False, False, "", None)
    assert Field(knob, "b", lambda *_: None).control.options == ("a", "b")


def test_a_rate_is_a_slider_with_its_unit_and_fine_stops() -> None:
    knob = Knob("load", "Load", "float", 25.0, "help", "1/s", 0.01, 20000.0, (), True, True, "", None)
    heard: list[Any] = []
    found = Field(knob, 25.0, lambda _, value: heard.append(value))
    assert not found.is_text
    labels = dict(found.control.options)
    assert labels["25/s"] == 25.0
    around = [v for v in labels.values() if 20 <= v <= 50]
    assert len(around) >= 6
    found.control.value = 30.0
    assert heard == [30.0]
    found.set(33.0)
    assert found.value() == 33.0
