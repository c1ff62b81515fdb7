"""The words that a lab uses, each explained in a sentence: at the pointer, and in a list below the lab. Pure HTML.

A quantity's sentence is its `help` in the vocabulary; here are those of the other words that stand beside numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ..quantities import quantity
from ..texts import N_, tr

#: Parts of a step, by `Quantity.part`: one colour each, whatever the quantity is called.
PART_HELP = {
    "compute": N_("Arithmetic: forward and backward passes, the optimiser, or serving a request."),
    "data": N_("Fetching and preparing what is worked on."),
    "communication": N_("Moving bytes between nodes."),
    "wait": N_("Standing still until somebody else arrives."),
    "bubble": N_("A pipeline stage that has nothing to do yet, or any more."),
    "injected": N_("Delay that was added on purpose."),
    "runtime": N_("What the lab itself costs: control and sampling."),
}
#: What stands beside numbers.
WORDS = {
    "Predicted": N_(
        "What a model said before the run, from the setup and an earlier calibration: a line, with its band of uncertainty."
    ),
    "Measured": N_("What the ranks really took: points, with whiskers over the middle half or the 95 % interval."),
    "Published": N_("What others measured and published, on their machines: diamonds."),
    "measured": N_("Read from a clock or a counter on this machine."),
    "modelled": N_("Worked out from a model, with what was measured on this machine put in."),
    "assumed": N_("A price, a yearly average or a default that nobody measured here."),
    "Segment": N_("A stretch of a run in which nothing was changed: the unit of comparison."),
    "Error": N_("Predicted against measured: (predicted - measured) / measured."),
    "Verdict": N_(
        "Within the band: the model's own range covers it. Within chance: the measurement is too short to tell. Close: within 20 %."
    ),
}


def term_html(name: str) -> str:
    """Return a quantity's label, with its colour where it is a part, and its explanation at the pointer."""
    q = quantity(name)
    return dot_html(q.part) + explained_html(q.label, q.help)


def word_html(word: str) -> str:
    """Return one of `WORDS` with its explanation at the pointer."""
    return explained_html(tr(word), tr(WORDS[word]))


def explained_html(text: str, help_: str, kind: str = "") -> str:
    """Return a text that explains itself when pointed at; a screen reader reads the explanation as its description."""
    classes = f"aiinfra-term {kind}".strip()
    told_ = escape(help_)
    return f'<span class="{classes}" data-help="{told_}" aria-description="{told_}">{escape(text)}</span>'


def dot_html(part: str) -> str:
    """Return a dot in the colour of a part; nothing for no part."""
    return f'<i class="aiinfra-dot" style="background:var(--aiinfra-{part})"></i>' if part else ""


def piece_html(name: str, percent: float, says: str) -> str:
    """Return one piece of a bar: its width, the colour of its part, what it says at the pointer."""
    colour = f"var(--aiinfra-{quantity(name).part or 'measured'})"
    return f'<i style="width:{percent:.2f}%;background:{colour}" title="{escape(says)}"></i>'


def glossary_html(names: Iterable[str]) -> str:
    """Return a folded list of these quantities, and of the words beside numbers, each with its sentence."""
    rows = [(dot_html(quantity(n).part) + escape(quantity(n).label), quantity(n).help) for n in dict.fromkeys(names)]
    rows += [(escape(tr(w)), tr(h)) for w, h in WORDS.items()]
    items = "".join(f"<dt>{head}</dt><dd>{escape(text)}</dd>" for head, text in rows)
    return f'<details class="aiinfra-glossary"><summary>{escape(tr("What the words mean"))}</summary><dl>{items}</dl></details>'
