"""What a lab says: counts, values with units, what changed; the words are the experiment's."""

from __future__ import annotations

from typing import Any

import pytest

from aiinfra_widgets.experiment import Experiment
from aiinfra_widgets.quantities import show
from aiinfra_widgets.runs.control import Request
from aiinfra_widgets.widgets.words import amount, asked_text, counted, difference, lowered, plural


@pytest.mark.parametrize(
    ("label", "count", "says"),
    [("Nodes", 1, "1 node"), ("Carriers", 2, "2 carriers"), ("GPUs", 1, "1 GPU"), ("Edge nodes", 3, "3 edge nodes")],
)
def test_a_count_is_said_in_the_words_of_its_field(label: str, count: int, says: str) -> None:
    assert counted(label, count) == says


@pytest.mark.parametrize(("word", "says"), [("step", "steps"), ("watch", "watches"), ("box", "boxes")])
def test_plurals(word: str, says: str) -> None:
    assert plural(word) == says


@pytest.mark.parametrize(
    ("unit", "value", "says"),
    [
        ("1/s", 2500.0, "2500/s"), ("s", 0.002, "2 ms"), ("B", 2**20, "1 MiB"), ("", 123456789, "123456789"), ("", 0.1, "0.1"),
        ("s", True, "True"), ("", "central", "central"),
    ],
)  # fmt: skip
def test_a_value_is_said_with_its_unit(unit: str, value: Any, says: str) -> None:
    assert amount(unit, value) == says


def test_capitals_stay_where_they_mean_something() -> None:
    assert lowered("Mean GPU load") == "mean GPU load"


def test_what_changed_and_what_was_asked(errands: Experiment) -> None:
    spec = errands.spec.make({})
    assert difference(None, spec) == "1 carrier"
    assert difference(spec, spec.changed({"nodes": 2})) == "2 carriers"
    assert difference(spec, spec.changed({"errands_per_s": 5.0})) == "Load 5/s"
    changes = asked_text(errands, Request("1", "test", {"errand_s": 0.5}))
    assert changes == "Errand 500 ms"
    sent = Request("2", "test", verb="send", arguments={"length_s": 2.0, "priority": 3, "fragile": True})
    assert asked_text(errands, sent) == "Send (Length 2 s, Priority 3, Fragile on)"
    assert asked_text(errands, Request("3", "test", verb="whistle")) == "Whistle"


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("samples/s", 34_900.0, "34.9k samples/s"),
        ("tokens/s", 1.2e6, "1.2M tokens/s"),
        ("requests/s", 25.0, "25 requests/s"),
        ("B/s", 2.5e9, "2.5 GB/s"),
        ("gCO2e", 0.0108, "10.8 mg CO\u2082e"),
        ("gCO2e", 1200.0, "1.2 kg CO\u2082e"),
        ("USD", 1234.5, "$1,234.50"),
        ("USD", 0.25, "$0.25"),
        ("USD", 0.000351, "$0.00035"),
        ("USD", 2.9e-7, "0.29 \u00b5$"),
        ("requests", 0.03333, "0.0333 requests"),
        ("requests", 1234.0, "1234 requests"),
    ],
)
def test_numbers_are_told_as_people_say_them(unit: str, value: float, shown: str) -> None:
    assert show(unit, value) == shown
