"""Every word that stands beside a number is explained in a sentence."""

from __future__ import annotations

import re
from html import unescape

import pytest

from aiinfra_widgets.experiment import experiment, experiment_names
from aiinfra_widgets.quantities import QUANTITIES, quantity
from aiinfra_widgets.widgets.feed import Shown
from aiinfra_widgets.widgets.terms import PART_HELP, WORDS, glossary_html, term_html
from aiinfra_widgets.widgets.theme import PARTS

LABS = [n for n in experiment_names() if experiment(n).compared]


def sentence(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Z0-9\"(torch].{9,180}[.)]", text, re.DOTALL)) and "  " not in text


@pytest.mark.parametrize("name", LABS)
def test_every_quantity_that_a_lab_shows_is_explained(name: str) -> None:
    shown = Shown(experiment(name)).quantities
    assert len(shown) > 3
    assert [q for q in shown if not sentence(quantity(q).help)] == []
    labels = [quantity(q).label for q in shown if quantity(q).help == quantity(q).label]
    assert labels == [], "a sentence that only repeats the label explains nothing"


def test_every_entry_of_the_vocabulary_and_every_part_has_its_sentence() -> None:
    assert [n for n, q in QUANTITIES.items() if not sentence(q.help)] == []
    assert set(PART_HELP) == set(PARTS)
    assert [w for w, text in {**PART_HELP, **WORDS}.items() if not sentence(text)] == []


@pytest.mark.parametrize("name", LABS)
def test_figures_and_their_legends_explain_themselves(name: str) -> None:
    shown = Shown(experiment(name))
    charts = [shown.chart(c) for c in shown.names]
    assert [c.name for c in charts if not c.help and c.name != "timeline"] == []
    mute = [(c.name, k.text) for c in charts if c.name != "timeline" for k in c.keys if not k.help]
    assert mute == []


@pytest.mark.parametrize("name", LABS)
def test_every_axis_says_its_unit_or_what_it_counts(name: str) -> None:
    shown = Shown(experiment(name))
    for chart in (shown.chart(c) for c in shown.names):
        rows = {"bars"}  # its y axis names its two rows
        axes = chart.figure.xaxis if chart.name in rows else chart.figure.axis
        assert all(a.axis_label for a in axes), chart.name


def test_a_term_shows_its_sentence_at_the_pointer_and_to_a_screen_reader() -> None:
    html = term_html("straggler_wait_time_s")
    help_ = quantity("straggler_wait_time_s").help
    assert f'data-help="{help_}"' in unescape(html)
    assert f'aria-description="{help_}"' in unescape(html)
    assert "--aiinfra-wait" in html
    listed = glossary_html(["straggler_wait_time_s", "straggler_wait_time_s"])
    assert listed.count(help_) == 1
