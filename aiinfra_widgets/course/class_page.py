"""The class view as HTML: for each question a strip of dots, predictions over what was measured, on a logarithmic axis.

One page that needs nothing else: figures are SVG, colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from ..errors import UnknownNameError
from ..experiment import experiment
from ..palette import MEASURED, PREDICTED
from ..quantities import quantity, show
from ..texts import tr

if TYPE_CHECKING:
    from .classroom import Classroom, Group, Guess

#: The axis: from a tenth to ten times what was measured; what lies beyond stands at the edge, as a triangle.
SPAN = 10.0
WIDTH, LEFT, RIGHT, DOT, STEP = 760, 20, 20, 5.0, 11.5
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)

LIGHT = f"--ink:#1f2328; --soft:#59636e; --rule:#d1d9e0; --band:{PREDICTED}1f"
DARK = f"--ink:#e6e9ee; --soft:#9aa4b0; --rule:#37404a; --band:{PREDICTED}3d"
STYLE = f"""
.class-view {{ --paper:#fff; {LIGHT}; color:var(--ink); background:var(--paper);
  font:15px/1.5 system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif; max-width:860px; margin:0 auto; padding:24px }}
@media (prefers-color-scheme: dark) {{ .class-view {{ --paper:#14181d; {DARK} }} }}
[data-jp-theme-light="false"] .class-view {{ --paper:transparent; {DARK} }}
[data-jp-theme-light="true"] .class-view {{ --paper:transparent; {LIGHT} }}
.class-view h1 {{ font-size:26px; margin:0 0 4px }} .class-view h2 {{ font-size:18px; margin:36px 0 0 }}
.class-view p {{ margin:4px 0 }} .class-view .soft {{ color:var(--soft) }}
.class-view svg {{ width:100%; height:auto; display:block; margin:8px 0 }} .class-view svg text {{ fill:var(--soft); font-size:12px }}
.class-view .dot {{ fill:{PREDICTED}; stroke:var(--paper); stroke-width:1 }} .class-view .dot:hover {{ stroke:var(--ink); stroke-width:2 }}
.class-view details {{ margin:6px 0 }} .class-view summary {{ cursor:pointer; color:var(--soft) }}
.class-view li {{ margin:6px 0 }} .class-view .bar {{ fill:{PREDICTED} }} .class-view .rest {{ fill:var(--rule) }}
"""


def page(room: Classroom) -> str:
    """Return a whole page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(tr("Class view"))}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        '<style>body{margin:0}@media (prefers-color-scheme: dark){body{background:#14181d}}</style>'
        f"</head><body>{body(room)}</body></html>\n"
    )  # fmt: skip


def body(room: Classroom) -> str:
    """Return the view without the page around it, for a notebook."""
    learners = len({g.learner for g in room.guesses})
    head = tr("{learners} learners, {guesses} first predictions", learners=learners, guesses=len(room.guesses))
    how = tr("Each dot is one learner's prediction over what that learner's own machine then measured. "
             "Left of the line: too low, right of it: too high. "
             "Only the first prediction of a setup counts; later ones were made after a reveal.")  # fmt: skip
    parts = [_group(g) for g in room.groups()] or [
        f"<p>{escape(tr('No predictions yet. Collect notebooks that were handed in, or ledgers.'))}</p>"
    ]
    left = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in room.left_out.items())
    rest = f"<h2>{escape(tr('Left out'))}</h2><ul>{left}</ul>" if left else ""
    return (
        f"<style>{STYLE}</style><main class='class-view'><h1>{escape(tr('Class view'))}</h1>"
        f"<p><b>{escape(head)}</b></p><p class='soft'>{escape(how)}</p>{''.join(parts)}{rest}</main>"
    )


def _title(lab: str) -> str:
    """Return an experiment's title; asking for it also adds its quantities to the vocabulary."""
    known = {"claims": tr("Claims"), "scale_out": tr("Scaling out")}
    try:
        return known.get(lab) or tr(experiment(lab).title)
    except UnknownNameError:
        return lab


def _label(name: str) -> str:
    try:
        return quantity(name).label
    except UnknownNameError:
        return name


def _amount(name: str, value: float | None) -> str:
    try:
        return show(name, value)
    except UnknownNameError:
        return "" if value is None else f"{value:g}"


def _group(group: Group) -> str:
    title = f"{_title(group.lab)}: {_label(group.question)}"
    figure, said = _verdicts(group) if _is_verdict(group) else (_strip(group), _in_words(group))
    words = [g for g in group.guesses if g.explanation]
    items = "".join(
        f"<li><span class='soft'>{escape(g.learner)}, {escape(_ratio(g))}</span><br>{escape(g.explanation)}</li>"
        for g in words
    )
    why = (
        f"<details><summary>{escape(tr('Explanations ({n})', n=len(words)))}</summary><ul>{items}</ul></details>"
        if words
        else ""
    )
    return f"<h2>{escape(title)}</h2>{figure}<p>{escape(said)}</p>{why}"


def _is_verdict(group: Group) -> bool:
    """Whether the question is one of yes and no, as whether a claim holds."""
    return all(g.value in {0, 1} for g in group.guesses)


def _ratio(guess: Guess) -> str:
    return tr("not measured") if guess.ratio is None else tr("{ratio:.2g} times", ratio=guess.ratio)


def _x(ratio: float) -> float:
    share = (math.log10(ratio) / math.log10(SPAN) + 1) / 2
    return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _strip(group: Group) -> str:
    """Draw dots that stack where they meet, the line of what was measured, and the middle half as a band."""
    compared = sorted((g for g in group.guesses if g.ratio is not None), key=lambda g: g.ratio or 0.0)
    rows: list[list[float]] = []
    placed = []
    for g in compared:
        x = _x(g.ratio or 1.0)
        row = next((i for i, taken in enumerate(rows) if x - taken[-1] >= STEP), len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(x)
        placed.append((g, x, row))
    base = 24 + STEP * max(len(rows), 3)
    dots = "".join(_dot(group, g, x, base - 10 - STEP * row) for g, x, row in placed)
    s = group.summary()
    band = ""
    if s["compared"] > 3:
        low, high = _x(s["quartile_low"]), _x(s["quartile_high"])
        band = (
            f"<rect x='{low:.1f}' y='18' width='{max(high - low, 2):.1f}' height='{base - 18:.1f}' fill='var(--band)'/>"
        )
    ticks = "".join(
        f"<line x1='{_x(t):.1f}' x2='{_x(t):.1f}' y1='{base}' y2='{base + 5}' stroke='var(--rule)'/>"
        f"<text x='{_x(t):.1f}' y='{base + 19}' text-anchor='middle'>{t:g}×</text>" for t in TICKS)  # fmt: skip
    one = _x(1)
    return (
        f"<svg viewBox='0 0 {WIDTH} {base + 44:.0f}' role='img' aria-label='{escape(_in_words(group), quote=True)}'>{band}"
        f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{base}' y2='{base}' stroke='var(--rule)'/>{ticks}"
        f"<line x1='{one}' x2='{one}' y1='16' y2='{base}' stroke='{MEASURED}' stroke-width='2'/>"
        f"<text x='{one}' y='11' text-anchor='middle'>{escape(tr('as measured'))}</text>{dots}"
        f"<text x='{WIDTH / 2}' y='{base + 38}' text-anchor='middle'>{escape(tr('prediction over measurement'))}</text></svg>"
    )


def _dot(group: Group, guess: Guess, x: float, y: float) -> str:
    tip = tr("{who}: predicted {value}, measured {measured}", who=guess.learner, value=_amount(group.question, guess.value),
             measured=_amount(group.question, guess.measured))  # fmt: skip
    title = f"<title>{escape(tip)}</title>"
    ratio = guess.ratio or 1.0
    if 1 / SPAN <= ratio <= SPAN:
        return f"<circle class='dot' cx='{x:.1f}' cy='{y:.1f}' r='{DOT}'>{title}</circle>"
    way = 1 if ratio > SPAN else -1
    return f"<path class='dot' d='M{x + way * 7:.1f} {y:.1f} l{-way * 10} -6 v12 z'>{title}</path>"


def _in_words(group: Group) -> str:
    s = group.summary()
    if not s["compared"]:
        return tr("{n} predictions, none measured yet.", n=s["predictions"])
    return tr("{compared} of {n} predictions were measured. The middle one is {median:.2g} times what was measured, half of them lie "
              "between {low:.2g} and {high:.2g} times. {below} are below half, {above} above double.",
              compared=s["compared"], n=s["predictions"], median=s["median_ratio"], low=s["quartile_low"], high=s["quartile_high"],
              below=s["below_half"], above=s["above_double"])  # fmt: skip


def _verdicts(group: Group) -> tuple[str, str]:
    """Draw how many believed a claim, and say how many were right where it was decided."""
    n = len(group.guesses)
    believed = sum(g.value == 1 for g in group.guesses)
    decided = [g for g in group.guesses if g.measured in {0.0, 1.0}]
    right = sum(g.value == g.measured for g in decided)
    said = tr("{believed} of {n} believed it. Where a machine decided it, {right} of {decided} were right.",
              believed=believed, n=n, right=right, decided=len(decided))  # fmt: skip
    whole = WIDTH - LEFT - RIGHT
    part = whole * believed / n
    figure = (
        f"<svg viewBox='0 0 {WIDTH} 30' role='img' aria-label='{escape(said, quote=True)}'>"
        f"<rect class='rest' x='{LEFT}' y='8' width='{whole}' height='14'/>"
        f"<rect class='bar' x='{LEFT}' y='8' width='{part:.1f}' height='14'/></svg>"
    )
    return figure, said
