"""The claims as a table, and one of them in detail. Pure HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from html import escape

from ..claims.claim import Claim
from ..claims.trials import Trials, right_words
from ..claims.units import said
from ..claims.verdicts import Verdict, percent
from ..quantities import show

COVERED = '<span class="aiinfra-none">covered until you commit</span>'
NOTHING = '<span class="aiinfra-none">\u2013</span>'
GOOD, BAD = "\u2713", "\u2715"
HEAD = (
    ("Claim", ""), ("As printed", ""), ("Printed example", ""), ("Dimension", ""), ("Arithmetic", ""),
    ("Claim off by", "n"), ("Right model off by", "n"), ("You", ""), ("Verdict", ""),
)  # fmt: skip


def table_html(trials: Trials, revealed: frozenset[str]) -> str:
    """Return all claims, one row each.

    Args:
        trials: What is known of them.
        revealed: Of these the verdict is shown; of the others only what the article prints.
    """
    head = "".join(
        f'<th class="{css}">{escape(text)}</th>' if css else f"<th>{escape(text)}</th>" for text, css in HEAD
    )
    rows = "".join(_row(trials, claim, claim.id in revealed) for claim in trials.claims.values())
    caption = "Formulas of five articles, and what this machine says of them"
    return (
        f'<table class="aiinfra-table"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{score_html(trials, revealed)}"
    )


def _row(trials: Trials, claim: Claim, shown: bool) -> str:
    name = f"<td><b>{escape(claim.id)}</b><br>{escape(claim.about)}</td><td>{escape(claim.formula)}</td>"
    printed = "; ".join(e.result for e in claim.examples)
    cells = [f"<td>{escape(printed) or '<span class=aiinfra-none>none</span>'}</td>"]
    if shown:
        cells += [*_judged(trials, claim), f"<td>{verdict_html(trials.verdict(claim.id))}</td>"]
    else:
        cells.append(f'<td colspan="{len(HEAD) - len(cells) - 2}">{COVERED}</td>')
    return f"<tr>{name}{''.join(cells)}</tr>"


def _judged(trials: Trials, claim: Claim) -> list[str]:
    dims = trials.dimensions(claim.id)
    dimension = _mark(dims.right, dims.found if dims.right else f"{dims.found}, not {dims.expected}")
    worked = claim.worked()
    off = [w for w in worked if not w.same]
    numbers = _mark(False, f"gives {off[0].shown}") if off else _mark(True, "as printed") if worked else NOTHING
    groups = trials.verdict(claim.id).groups
    errors = []
    for which in ("claim_error", "right_error"):
        found = [percent(getattr(g, which)) for g in groups]
        labels = " title='" + escape("; ".join(g.label for g in groups if g.label), quote=True) + "'"
        errors.append(f"<span{labels}>{escape(' / '.join(found))}</span>" if found else NOTHING)
    belief = trials.beliefs.get(claim.id)
    you = NOTHING if belief is None else escape(belief_words(belief))
    return [
        f"<td>{dimension}</td>",
        f"<td>{numbers}</td>",
        *(f'<td class="n">{e}</td>' for e in errors),
        f"<td>{you}</td>",
    ]


def _mark(good: bool, text: str) -> str:
    return f'<span class="aiinfra-verdict-{"good" if good else "far"}">{GOOD if good else BAD}</span> {escape(text)}'


def verdict_html(verdict: Verdict) -> str:
    """Return a verdict with its sign: a word and a shape, so that colour is not the only cue."""
    return f'<span class="aiinfra-verdict aiinfra-verdict-{verdict.kind}">{verdict.sign} {escape(verdict.word)}</span>'


def belief_words(holds: bool) -> str:
    """Return what the learner said."""
    return "believed" if holds else "doubted"


def score_html(trials: Trials, revealed: frozenset[str]) -> str:
    """Return how often the learner was right; a claim that holds in part counts for neither."""
    settled = {n: trials.verdict(n).word for n in revealed & set(trials.beliefs)}
    clear = {n: w in {"holds here", "close"} for n, w in settled.items() if w in {"holds here", "close", "refuted"}}
    if not clear:
        return ""
    right = sum(trials.beliefs[n] == holds for n, holds in clear.items())
    return f'<p class="aiinfra-note">You were right on {right} of {len(clear)}.</p>'


@cache
def math_html(latex: str) -> str:
    """Return a formula as MathML, which the browser sets without a font server."""
    from latex2mathml.converter import convert

    return str(convert(r"\displaystyle " + latex))


def statement_html(claim: Claim) -> str:
    """Return what the article says: source, formula, and its examples as printed."""
    examples = "".join(
        f"<li>{escape(', '.join(f'{_symbol(claim, k)} = {v}' for k, v in e.inputs.items()))}: <b>{escape(e.result)}</b>"
        f"{'; ' + escape(e.says) if e.says else ''}</li>"
        for e in claim.examples
    )
    printed = (
        f"<ul>{examples}</ul>" if examples else "<p class='aiinfra-note'>The article works out no number with it.</p>"
    )
    return (
        f"<p class='aiinfra-question'><b>{escape(claim.about)}</b> <small>{escape(claim.source)}</small></p>"
        f"<p class='aiinfra-claim-formula' title='{escape(claim.formula, quote=True)}' style='font-size:17px;margin:8px 0'>"
        f"{math_html(claim.latex)}</p><div><b>Printed example</b>{printed}</div>"
    )


def _symbol(claim: Claim, name: str) -> str:
    return next(i.symbol for i in claim.inputs if i.name == name)


def answer_html(trials: Trials, claim: Claim, shown: bool) -> str:
    """Return what formula and right model say of the typed inputs; the latter only once the learner has committed."""
    dims, values = trials.dimensions(claim.id), trials.values(claim.id)
    says = dims.shown or "nothing: unlike terms are added"
    right = escape(right_words(claim, values)) if shown else "commit first"
    return (
        f'<div class="aiinfra-big"><span>Formula</span><b>{escape(says)}</b></div>'
        f'<div class="aiinfra-big"><span>{escape(claim.right_name)}</span><b class="{"" if shown else "aiinfra-none"}">{right}</b></div>'
    )


def why_html(trials: Trials, claim: Claim) -> str:
    """Return the verdict with its reasons, and what is wrong in words."""
    verdict = trials.verdict(claim.id)
    because = "".join(f"<li>{escape(b)}</li>" for b in verdict.because)
    problem = trials.problems.get(claim.id) or (claim.senseless if not claim.measure else "")
    parts = [
        f"<p class='aiinfra-question'>{verdict_html(verdict)}</p><ul>{because}</ul>",
        f"<p style='margin-top:8px'><b>What is wrong or missing</b> {escape(claim.wrong)}</p>",
    ]
    if problem:
        parts.append(f"<p class='aiinfra-note' style='margin-top:8px'>{escape(problem)}</p>")
    return f'<div class="aiinfra-why">{"".join(parts)}</div>'


def measured_html(trials: Trials, claim: Claim) -> str:
    """Return how it was measured, and the points; nothing where nothing was."""
    found = trials.evidence(claim.id)
    if found is None:
        return ""
    took = f"{show('s', found.took_s)} on {found.when[:16].replace('T', ', ')} UTC"
    text = f"<p class='aiinfra-note'><b>Measured</b> {escape(found.method)} It took {escape(took)}.</p>"
    return text + points_html(claim, trials)


def points_html(claim: Claim, trials: Trials) -> str:
    """Return the measured points as a small table."""
    found = trials.evidence(claim.id)
    if found is None:
        return ""
    of = claim.axes.y_unit
    rows = "".join(
        f"<tr><td>{escape(f'{place(claim, p.at, found.rig)} {p.label}')}</td><td class='n'>{escape(said(p.value, of))}</td>"
        f"<td class='n'>{_range(p.low, p.high, of)}</td><td class='n'>{p.n}</td></tr>"
        for p in found.points
    )
    head = f"<th>{escape(claim.axes.label)}</th><th class='n'>Measured</th><th class='n'>From, to</th><th class='n'>Samples</th>"
    return f'<table class="aiinfra-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def place(claim: Claim, at: float, rig: Mapping[str, float]) -> str:
    """Return a value of the swept input as the figure's x axis has it."""
    axes = claim.axes
    if axes.share_of:
        return said(at / rig[axes.share_of], "frac")
    unit = next(i.unit for i in claim.inputs if i.name == axes.swept)
    return said(at, "frac" if axes.swept.endswith("_frac") else unit)


def _range(low: float, high: float, unit: str) -> str:
    return NOTHING if math.isinf(high - low) else escape(f"{said(low, unit)}, {said(high, unit)}")
