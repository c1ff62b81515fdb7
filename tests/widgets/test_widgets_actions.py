"""An experiment's own verbs: each argument has a control, what is wrong is said in place, the answer where it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets import Lab
from aiinfra_widgets.errors import ControlError
from aiinfra_widgets.experiment import Experiment, Verb
from aiinfra_widgets.runs import control
from aiinfra_widgets.widgets.actions import Actions
from aiinfra_widgets.widgets.state import Asked


def shown(box: Any) -> bool:
    return "aiinfra-hidden" not in box._dom_classes


class Heard:
    """Notes what was asked, and refuses what it is told to."""

    def __init__(self, exp: Experiment) -> None:
        self.exp, self.asked, self.refuse = exp, [], ""  # type: ignore[var-annotated]

    def __call__(self, verb: str, given: Mapping[str, Any]) -> Asked:
        if self.refuse:
            raise ControlError(self.refuse)
        control.arguments_of(self.exp.all_verbs()[verb], given)
        self.asked.append((verb, dict(given)))
        return Asked(f"id-{len(self.asked)}", verb)


def test_few_verbs_have_a_button_each_and_a_form_where_there_is_something_to_fill_in(errands: Experiment) -> None:
    heard = Heard(errands)
    actions = Actions(errands, heard)
    assert list(actions.buttons) == ["send", "drop", "whistle"]
    assert not any(shown(f.root) for f in actions.forms.values())
    actions.press("send")
    assert shown(actions.forms["send"].root)
    assert heard.asked == [], "a form is filled in first"
    actions.forms["send"].fields["length_s"].control.value = "200 ms"
    actions.forms["send"].fields["fragile"].control.value = True
    actions.forms["send"].submit()
    assert heard.asked == [("send", {"length_s": pytest.approx(0.2), "priority": 0, "fragile": True})]
    actions.press("drop")
    assert not shown(actions.forms["send"].root)
    actions.press("drop")
    assert not shown(actions.forms["drop"].root), "pressed again it closes"
    actions.press("whistle")
    assert heard.asked[-1] == ("whistle", {}), "nothing to fill in: asked at once"


def test_many_verbs_are_chosen_from_a_list(errands: Experiment) -> None:
    many = type("Many", (), {"verbs": (*errands.verbs, Verb("look_around", "Look."))})()
    actions = Actions(many, Heard(errands))
    assert actions.picker is not None
    assert [label for label, _ in actions.picker.options] == ["Send", "Drop", "Whistle", "Look around"]
    assert shown(actions.forms["send"].root)
    actions.picker.value = "look_around"
    assert [n for n, f in actions.forms.items() if shown(f.root)] == ["look_around"]
    assert actions.forms["look_around"].button.layout.display == ""


def test_an_experiment_without_verbs_shows_nothing() -> None:
    empty = type("Empty", (), {"verbs": ()})()
    assert Actions(empty, lambda *_: Asked("", "")).root.children == ()


def test_what_is_wrong_is_said_under_its_field(errands: Experiment) -> None:
    heard = Heard(errands)
    form = Actions(errands, heard).forms["send"]
    form.fields["length_s"].control.value = "two <b>moons</b>"
    form.submit()
    assert "allowed: a number from 0.01 to 5 s" in form.fields["length_s"].message.value
    form.fields["length_s"].control.value = "99"
    form.submit()
    assert "got 99.0; allowed" in form.fields["length_s"].message.value
    assert heard.asked == []
    form.fields["length_s"].control.value = "1"
    heard.refuse = "no run goes on <i>; start one first"
    form.submit()
    assert "no run goes on &lt;i&gt;" in form.message.value
    assert form.fields["length_s"].message.value == ""


def test_the_answer_appears_where_it_was_asked(errands: Experiment) -> None:
    actions = Actions(errands, Heard(errands))
    send, drop = actions.forms["send"], actions.forms["drop"]
    send.submit()
    drop.submit()
    assert "Asked ..." in send.message.value
    applied = Asked("id-1", "Send", answer={"kind": "applied", "tick": 12, "cost_s": 0.002})
    refused = Asked("id-2", "Drop", answer={"kind": "refused", "tick": 12, "reason": "it <does> not wait"})
    actions.draw([applied, refused], "watch", locked=False)
    assert "Done at watch 12, took 2 ms" in send.message.value
    assert "Refused. it &lt;does&gt; not wait" in drop.message.value
    actions.draw([], "watch", locked=True)
    assert send.button.disabled
    assert actions.buttons["drop"].disabled
    assert send.fields["length_s"].control.disabled


def test_the_lab_refuses_what_cannot_be_done(home: Path, carried: Any) -> None:
    lab = Lab("errands")
    with pytest.raises(ControlError, match="start one first"):
        lab.act("send")
    lab.state.reader, lab.state.phase = carried.reader(), "running"
    carried.segment()
    for verb, given, says in (
        ("sned", {}, "did you mean 'send'"),
        ("send", {"length_s": 99.0}, "send: length_s: got 99.0; allowed: a number from 0.01 to 5 s"),
        ("send", {"size": 1}, "send: size: no such argument"),
        ("whistle", {"verb": 1}, "whistle: verb: no such argument"),
    ):
        with pytest.raises(ControlError, match=says):
            lab.act(verb, **given)
    lab.act("send", length_s="200 ms", priority=3)
    [request] = control.pending(carried.run)
    assert (request.verb, request.arguments) == ("send", {"length_s": 0.2, "priority": 3, "fragile": False})
    [asked] = lab.state.look().asked
    assert asked.outcome("watch") == "Send (Length 200 ms, Priority 3, Fragile off): asked"


def test_the_screen_shows_actions_tiles_and_the_timeline_of_any_experiment(
    home: Path, watched: Callable[[], None], carried: Any
) -> None:
    carried.segment()
    carried.trip(1, 0, 0.0)
    carried.watch(40)
    lab = Lab("errands", nodes=2)
    screen = lab._the_screen()
    assert screen.actions.buttons["send"].disabled, "no run goes on"
    assert "response time" in screen.asking.children[1].children[0].value
    lab.state.reader, lab.state.phase = carried.reader(), "running"
    carried.event("launching", pid=1, born_s=0.0)
    lab._update(lab.state.look())
    assert "coordinator" in screen.ranks.value
    assert "Busy 25 %" in screen.ranks.value
    assert "Waiting 1" in screen.ranks.value
    assert "Watches" in screen.table.value
    assert "2 carriers" in screen.table.value
    assert "per errand" in screen.meters.value
    for words in (screen.header, screen.ranks, screen.table, screen.detail, screen.meters):
        assert " step" not in words.value
    assert {c["name"] for c in screen.feed_charts.charts} == {
        "timeline", "errand_wait_s", "carrier_busy_frac", "errands_waiting"
    }  # fmt: skip
