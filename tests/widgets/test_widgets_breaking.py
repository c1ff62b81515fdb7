"""The fold "Break something": what is asked, what is hidden, and what the log says of it."""

from __future__ import annotations

from html import escape

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.faults import KINDS
from aiinfra_widgets.runs.control import Request
from aiinfra_widgets.widgets.breaking import Breaking
from aiinfra_widgets.widgets.noticed import noticed_html
from aiinfra_widgets.widgets.state import Asked, Look
from aiinfra_widgets.widgets.words import asked_text


def test_a_kind_shows_its_sentence_and_what_it_needs():
    asked = []

    def ask(verb, given):
        asked.append((verb, dict(given)))
        return Asked("1", "x", {})

    form = Breaking(ask)
    for kind in KINDS.values():
        form.kind.value = kind.name
        assert escape(kind.help) in form.help.value
        assert {n for n, f in form._more.items() if "aiinfra-hidden" not in f.widget._dom_classes} == set(kind.uses)
    form.kind.value = "stop"
    form.draw(Look(members=(0, 3)), "step", locked=False)
    form.node.value = 3
    form.submit()
    assert asked[0][0] == "fault"
    assert (asked[0][1]["kind"], asked[0][1]["node"]) == ("stop", 3)
    form.draw(Look(members=(0,)), "step", locked=True)  # node 3 is gone
    assert form.node.value == -1
    assert form.button.disabled


def test_the_log_names_what_happened_newest_first_and_is_text():
    events = (
        {"kind": "fault", "fault": "kill", "node": 1, "tick": 7},
        {
            "kind": "alarm",
            "what": "stalled",
            "nodes": [1],
            "tick": 8,
            "message": "node 1 <b>stands</b> still",
            "next_step": "wait",
        },
        {"kind": "epoch", "tick": 9},
        {"kind": "rank-lost", "lost": [1], "nodes": 2, "tick": 9},
        {"kind": "resized", "spare": [3], "nodes": 3, "tick": 10},
    )
    found = noticed_html("step", Look(events=events))
    order = [
        "step 10: node 3 took the place",
        "step 9: node 1 died; 2 left at work",
        "&lt;b&gt;stands",
        "Kill a node: node 1",
    ]
    assert [found.index(text) for text in order] == sorted(found.index(text) for text in order)
    assert "Next: wait" in found
    assert noticed_html("step", Look()) == ""


def test_what_was_asked_is_said_with_what_the_kind_looks_at():
    arguments = {"kind": "stop", "node": 1, "seconds": 20.0, "share": 0.5, "latency_s": 0.005, "size_bytes": 4}
    said = asked_text(experiment("training"), Request("1", "lab", verb="fault", arguments=arguments))
    assert said == "Stop a node (Node 1, Duration 20 s)"
