"""Changes that are written down before a run."""

from __future__ import annotations

import pytest

from aiinfra_widgets.errors import ControlError, SpecError
from aiinfra_widgets.experiment import Fields, Verb, experiment, knob
from aiinfra_widgets.launch.schedule import Change, Words, parse_changes, read_words, room_for


class Lend(Fields):
    """Arguments, one of which is called like a live field."""

    nodes: int = knob(1, "How many.", ge=1, le=8)
    for_s: float = knob(2.0, "How long.", unit="s", ge=0.1, le=60.0)


class Lending(type(experiment("training"))):
    """Training with a verb that has arguments."""

    verbs = (Verb("lend", "Lend nodes.", Lend), Verb("wave", "Wave."))


EXP = experiment("training")
SPEC = EXP.spec.make({"nodes": 2})


def parsed(*texts):
    return parse_changes(EXP, SPEC, texts)


def test_fields_verbs_and_order():
    assert parsed("step=200 nodes=1", "step=50 learning_rate=1e-2 link_latency_s='2 ms'", "step=10 pause") == [
        Change(10, {}, "pause"),
        Change(50, {"learning_rate": 0.01, "link_latency_s": 0.002}, ""),
        Change(200, {"nodes": 1}, ""),
    ]


def test_a_pair_that_names_an_argument_of_the_verb_is_the_verbs():
    lending = Lending()
    assert parse_changes(
        lending, SPEC, ["step=5 lend nodes=3 for_s='500 ms' learning_rate=0.1", "step=9 nodes=4 lend"]
    ) == [
        Change(5, {"learning_rate": 0.1}, "lend", {"nodes": 3, "for_s": 0.5}),
        Change(9, {"nodes": 4}, "lend", {"nodes": 1, "for_s": 2.0}),
    ]
    assert read_words(lending, ["for_s=1", "lend"], "x") == Words({}, "lend", {"for_s": "1"}, "")
    assert read_words(lending, ["nodes=1", "step=7"], "x") == Words({"nodes": "1"}, "", {}, "7")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("step=5 lend nodes=9", ControlError, "lend: nodes: got 9; allowed: a whole number from 1 to 8"),
        ("step=5 lend for_s=x", ControlError, "lend: for_s: cannot read 'x'"),
        ("step=5 wave for_s=1", SpecError, "for_s: no such field"),
        ("step=5 lend wave", SpecError, "lend and wave are two verbs"),
        ("step=5 lend for_s=1 for_s=2", SpecError, "for_s: got '1' and '2'; give it once"),
    ],
)
def test_what_is_wrong_with_a_verb_is_said(text, error, says):
    with pytest.raises(error, match=says):
        parse_changes(Lending(), SPEC, [text])


def test_a_change_is_checked_against_what_the_one_before_made():
    assert parsed("step=1 nodes=4", "step=2 slow_node=3")
    with pytest.raises(SpecError, match="slow_node: got 3; with 2 nodes"):
        parsed("step=2 slow_node=3")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("nodes=1", SpecError, "it must say when, as step=N"),
        ("step=1.5 nodes=1", SpecError, "it must say when"),
        ("step=² nodes=1", SpecError, "it must say when"),
        ("step=5", SpecError, "it says when, but not what"),
        ("step=5 jump", SpecError, "'jump' is neither key=value nor one of pause"),
        ("step=5 'nodes=1", SpecError, "cannot be read"),
        ("step=5 steps=7", ControlError, "steps cannot change while the run goes on"),
        ("step=5 nodes=x", SpecError, "nodes: cannot read 'x'"),
        ("", SpecError, "it must say when"),
    ],
)
def test_what_is_wrong_is_said(text, error, says):
    with pytest.raises(error, match=says):
        parsed(text)


@pytest.mark.parametrize(
    ("texts", "room", "want"),
    [((), None, 2), (("step=1 nodes=4", "step=2 nodes=1"), None, 4), (("step=1 nodes=4",), 1, 1)],
)
def test_room_is_held_for_the_largest_node_count_that_is_written_down(texts, room, want):
    assert room_for(SPEC, parsed(*texts), room) == want
