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
from ..texts import N_, told, tr

NOTHING = '<span class="aiinfra-none">\u2013</span>'
GOOD, BAD = "\u2713", "\u2715"
HEAD = (
    (N_("Claim"), ""), (N_("As printed"), ""), (N_("Printed example"), ""), (N_("Dimension"), ""), (N_("Arithmetic"), ""),
    (N_("Claim off by"), "n"), (N_("Right model off by"), "n"), (N_("You"), ""), (N_("Verdict"), ""),
)  # fmt: skip


def table_html(trials: Trials, revealed: frozenset[str]) -> str:
    """Return all claims, one row each.

    Args:
        trials: What is known of them.
        revealed: Of these the verdict is shown; of the others only what the article prints.
    """
    head = "".join(
        f'<th class="{css}">{escape(tr(text))}</th>' if css else f"<th>{escape(tr(text))}</th>" for text, css in HEAD
    )
    rows = "".join(_row(trials, claim, claim.id in revealed) for claim in trials.claims.values())
    caption = escape(tr("Formulas of five articles, and what this machine says of them"))
    return (
        f'<table class="aiinfra-table"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{score_html(trials, revealed)}"
    )


def _row(trials: Trials, claim: Claim, shown: bool) -> str:
    name = f"<td><b>{escape(claim.id)}</b><br>{escape(tr(claim.about))}</td><td>{escape(claim.formula)}</td>"
    printed = "; ".join(e.result for e in claim.examples)
    none = f"<span class=aiinfra-none>{escape(tr('none'))}</span>"
    cells = [f"<td>{escape(printed) or none}</td>"]
    if shown:
        cells += [*_judged(trials, claim), f"<td>{verdict_html(trials.verdict(claim.id))}</td>"]
    else:
        covered = f'<span class="aiinfra-none">{escape(tr("covered until you commit"))}</span>'
        cells.append(f'<td colspan="{len(HEAD) - len(cells) - 2}">{covered}</td>')
    return f"<tr>{name}{''.join(cells)}</tr>"


def _judged(trials: Trials, claim: Claim) -> list[str]:
    dims = trials.dimensions(claim.id)
    found = told(dims.found)
    dimension = _mark(
        dims.right, found if dims.right else tr("{found}, not {expected}", found=found, expected=told(dims.expected))
    )
    worked = claim.worked()
    off = [w for w in worked if not w.same]
    numbers = (
        _mark(False, tr("gives {value}", value=told(off[0].shown)))
        if off
        else _mark(True, tr("as printed"))
        if worked
        else NOTHING
    )
    groups = trials.verdict(claim.id).groups
    errors = []
    for which in ("claim_error", "right_error"):
        far = [percent(getattr(g, which)) for g in groups]
        labels = " title='" + escape("; ".join(told(g.label) for g in groups if g.label), quote=True) + "'"
        errors.append(f"<span{labels}>{escape(' / '.join(far))}</span>" if far else NOTHING)
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
    return (
        f'<span class="aiinfra-verdict aiinfra-verdict-{verdict.kind}">{verdict.sign} {escape(tr(verdict.word))}</span>'
    )


def belief_words(holds: bool) -> str:
    """Return what the learner said."""
    return tr("believed") if holds else tr("doubted")


def score_html(trials: Trials, revealed: frozenset[str]) -> str:
    """Return how often the learner was right; a claim that holds in part counts for neither."""
    settled = {n: trials.verdict(n).word for n in revealed & set(trials.beliefs)}
    clear = {n: w in {"holds here", "close"} for n, w in settled.items() if w in {"holds here", "close", "refuted"}}
    if not clear:
        return ""
    right = sum(trials.beliefs[n] == holds for n, holds in clear.items())
    return f'<p class="aiinfra-note">{escape(tr("You were right on {some} of {all}.", some=right, all=len(clear)))}</p>'


@cache
def math_html(latex: str) -> str:
    """Return a formula as MathML, which the browser sets without a font server."""
    from latex2mathml.converter import convert

    return str(convert(r"\displaystyle " + latex))


def statement_html(claim: Claim) -> str:
    """Return what the article says: source, formula, and its examples as printed."""
    examples = "".join(
        f"<li>{escape(', '.join(f'{_symbol(claim, k)} = {v}' for k, v in e.inputs.items()))}: <b>{escape(e.result)}</b>"
        f"{'; ' + escape(tr(e.says)) if e.says else ''}</li>"
        for e in claim.examples
    )
    printed = (
        f"<ul>{examples}</ul>"
        if examples
        else f"<p class='aiinfra-note'>{escape(tr('The article works out no number with it.'))}</p>"
    )
    return (
        f"<p class='aiinfra-question'><b>{escape(tr(claim.about))}</b> <small>{escape(tr(claim.source))}</small></p>"
        f"<p class='aiinfra-claim-formula' title='{escape(claim.formula, quote=True)}' style='font-size:17px;margin:8px 0'>"
        f"{math_html(claim.latex)}</p><div><b>{escape(tr('Printed example'))}</b>{printed}</div>"
    )


def _symbol(claim: Claim, name: str) -> str:
    return next(i.symbol for i in claim.inputs if i.name == name)


def answer_html(trials: Trials, claim: Claim, shown: bool) -> str:
    """Return what formula and right model say of the typed inputs; the latter only once the learner has committed."""
    dims, values = trials.dimensions(claim.id), trials.values(claim.id)
    says = told(dims.shown) if dims.shown else tr("nothing: unlike terms are added")
    none = "" if shown else "aiinfra-none"
    right = escape(right_words(claim, values)) if shown else escape(tr("commit first"))
    return (
        f'<div class="aiinfra-big"><span>{escape(tr("Formula"))}</span><b>{escape(says)}</b></div>'
        f'<div class="aiinfra-big"><span>{escape(tr(claim.right_name))}</span><b class="{none}">{right}</b></div>'
    )


def why_html(trials: Trials, claim: Claim) -> str:
    """Return the verdict with its reasons, and what is wrong in words."""
    verdict = trials.verdict(claim.id)
    because = "".join(f"<li>{escape(told(b))}</li>" for b in verdict.because)
    problem = trials.problems.get(claim.id) or (claim.senseless if not claim.measure else "")
    parts = [
        f"<p class='aiinfra-question'>{verdict_html(verdict)}</p><ul>{because}</ul>",
        f"<p style='margin-top:8px'><b>{escape(tr('What is wrong or missing'))}</b> {escape(tr(claim.wrong))}</p>",
    ]
    if problem:
        parts.append(f"<p class='aiinfra-note' style='margin-top:8px'>{escape(told(problem))}</p>")
    return f'<div class="aiinfra-why">{"".join(parts)}</div>'


def measured_html(trials: Trials, claim: Claim) -> str:
    """Return how it was measured, and the points; nothing where nothing was."""
    found = trials.evidence(claim.id)
    if found is None:
        return ""
    when = found.when[:16].replace("T", ", ")
    took = tr("It took {time} on {when} UTC.", time=show("s", found.took_s), when=when)
    how = f"{escape(told(found.method))} {escape(took)}"
    text = f"<p class='aiinfra-note'><b>{escape(tr('Measured'))}</b> {how}</p>"
    return text + points_html(claim, trials)


def points_html(claim: Claim, trials: Trials) -> str:
    """Return the measured points as a small table."""
    found = trials.evidence(claim.id)
    if found is None:
        return ""
    of = claim.axes.y_unit
    rows = "".join(
        f"<tr><td>{escape(f'{place(claim, p.at, found.rig)} {told(p.label)}')}</td><td class='n'>{escape(said(p.value, of))}</td>"
        f"<td class='n'>{_range(p.low, p.high, of)}</td><td class='n'>{p.n}</td></tr>"
        for p in found.points
    )
    titles = (tr("Measured"), tr("From, to"), tr("Samples"))
    head = f"<th>{escape(tr(claim.axes.label))}</th>" + "".join(f"<th class='n'>{escape(t)}</th>" for t in titles)
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
