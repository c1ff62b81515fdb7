"""The comparison as a table: one row per segment, and below it the parts of the last one that has settled. Pure HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..comparison import Comparison, Row
from ..experiment import Experiment
from ..quantities import Value, quantity, show
from ..texts import N_, told, tr, trn
from .header import refusal_html
from .terms import term_html, word_html
from .words import difference, plural

#: Older segments than this many are folded.
NEWEST = 8
MARKS = {
    N_("within the band"): ("good", "\u2713"),
    N_("within chance"): ("good", "\u2713"),
    N_("close"): ("near", "\u2248"),
    N_("off"): ("far", "\u2260"),
    N_("not compared"): ("none", "\u2013"),
}


def comparison_html(exp: Experiment, found: Sequence[Comparison], guess: float | None = None) -> str:
    """Return the table of all segments, newest first, and the parts of the last settled one.

    Args:
        exp: Names the quantities.
        found: One comparison per segment, oldest first.
        guess: The learner's own prediction of the first segment.
    """
    if not found:
        return _empty(tr("Nothing to compare yet. Each configuration that runs long enough becomes a row here."))
    head = "".join(
        f"<th{css}>{t}</th>"
        for t, css in (
            (word_html("Segment"), ""), (escape(tr("Configuration")), ""), (escape(plural(exp.tick).capitalize()), ' class="n"'),
            (word_html("Predicted"), ' class="n"'), (word_html("Measured"), ' class="n"'), (word_html("Error"), ' class="n"'),
            (word_html("Verdict"), ""),
        )
    )  # fmt: skip
    rows = [_segment(exp, found, i, guess if i == 0 else None) for i in range(len(found) - 1, -1, -1)]
    caption = tr("{quantity} by segment", quantity=quantity(exp.compared[0]).label)
    table = f'<table class="aiinfra-table"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
    table += f"<tbody>{''.join(rows[:NEWEST])}</tbody></table>"
    if len(rows) > NEWEST:
        older = f'<table class="aiinfra-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows[NEWEST:])}</tbody></table>'
        fold = trn("{count} older segment", "{count} older segments", len(rows) - NEWEST)
        table += f'<details class="aiinfra-older"><summary>{escape(fold)}</summary>{older}</details>'
    return table


def detail_html(exp: Experiment, found: Sequence[Comparison]) -> str:
    """Return every compared quantity of the last segment that has settled, and what explains the difference."""
    settled = [c for c in found if not c.segment.transient]
    if not settled:
        need = exp.settle_ticks + exp.min_ticks
        return _empty(
            tr("The details of a segment appear after its first {count} {ticks}.", count=need, ticks=plural(exp.tick))
        )
    last = settled[-1]
    names = dict.fromkeys((*exp.compared, *exp.parts))
    rows = "".join(_quantity(r) for r in last.rows if r.quantity in names and not _nothing(exp, r))
    titles = "".join(f'<th class="n">{escape(t)}</th>' for t in (tr("Predicted"), tr("Measured"), tr("Error")))
    head = f"<tr><th></th>{titles}</tr>"
    place = found.index(last)
    what = difference(found[place - 1].segment.spec if place else None, last.segment.spec)
    title = tr("Segment {number}: {what}", number=last.segment.index, what=what)
    causes = "".join(f"<li>{escape(told(c))}</li>" for c in last.causes)
    why = f'<div class="aiinfra-why"><b>{escape(tr("Why they differ"))}</b><ul>{causes}</ul></div>' if causes else ""
    if last.segment.refused and not last.segment.prediction:
        why = f'<div class="aiinfra-why"><b>{escape(tr("No prediction to compare with"))}</b>{refusal_html(last.segment.refused)}</div>'
    return f'<table class="aiinfra-table"><caption>{escape(title)}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>{why}'


def _nothing(exp: Experiment, row: Row) -> bool:
    """Whether it is a part that neither side has: no row for the pipeline's bubble where there is no pipeline."""
    return row.quantity in exp.parts and not any(v is not None and v.value for v in (row.predicted, row.measured))


def watched_html(exp: Experiment, found: Sequence[Comparison], names: Sequence[str]) -> str:
    """Return further quantities as a table: a row for each segment, newest first; what was predicted in small type.

    Args:
        exp: Names the tick.
        found: One comparison per segment, oldest first.
        names: Of the quantities.
    """
    if not names or not found:
        return ""
    head = "".join(f'<th class="n" title="{escape(quantity(n).help)}">{escape(quantity(n).label)}</th>' for n in names)
    rows = []
    for i in range(len(found) - 1, -1, -1)[:NEWEST]:
        c = found[i]
        what = difference(found[i - 1].segment.spec if i else None, c.segment.spec)
        cells = "".join(f'<td class="n">{both_html(c.row(n))}</td>' for n in names)
        rows.append(f"<tr><td>{c.segment.index}</td><td>{escape(what)}</td>{cells}</tr>")
    title = escape(tr("Also measured, by segment; in small type what was predicted"))
    first = f"<th>{escape(tr('Segment'))}</th><th>{escape(tr('Configuration'))}</th>"
    return (
        f'<table class="aiinfra-table"><caption>{title}</caption><thead><tr>{first}{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def both_html(row: Row | None) -> str:
    """Return what was measured, and below it in small type what was predicted."""
    predicted = row.predicted if row else None
    said = show(row.quantity, predicted.value) if row and predicted and predicted.value is not None else ""
    return value_html(row.measured if row else None) + (f"<br><small>{escape(said)}</small>" if said else "")


def _segment(exp: Experiment, found: Sequence[Comparison], i: int, guess: float | None) -> str:
    c = found[i]
    s, row = c.segment, c.row(exp.compared[0])
    what = difference(found[i - 1].segment.spec if i else None, s.spec)
    verdict = row.verdict if row else "not compared"
    kind, mark = MARKS[verdict]
    if s.transient:
        kind, mark, verdict = "none", "\u2026", "not compared"
        words = tr("too short to compare")
    else:
        words = tr(verdict) if row and row.predicted else tr("no prediction")
    predicted, measured = (row.predicted, row.measured) if row else (None, None)
    own = _own(exp, guess, None if s.transient or measured is None else measured.value) if guess else ""
    cells = (
        f"<td>{s.index}</td><td>{escape(what)}</td><td class='n'>{s.first_tick}\u2013{s.first_tick + s.ticks}</td>"
        f"<td class='n'>{own}{value_html(predicted)}</td><td class='n'>{value_html(measured)}</td>"
        f"<td class='n'>{error_html(None if s.transient else row)}</td>"
        f"<td><span class='aiinfra-verdict aiinfra-verdict-{kind}'>{mark} {escape(words)}</span></td>"
    )
    return f"<tr>{cells}</tr>"


def _own(exp: Experiment, guess: float, measured: float | None) -> str:
    """Return what the person predicted, judged as the model is."""
    said = tr("you: {value}", value=show(exp.compared[0], guess))
    judged = f" ({_error(guess / measured - 1)})" if measured else ""
    return f'<span class="aiinfra-own">{escape(said + judged)} \u00b7 </span>'


def _quantity(row: Row) -> str:
    measured = row.measured
    doubt = measured is not None and measured.value is not None and measured.method != "measured"
    tag = f' <small class="aiinfra-tag">{escape(tr(measured.method))}</small>' if measured and doubt else ""
    return (
        f'<tr><th>{term_html(row.quantity)}</th><td class="n">{value_html(row.predicted)}</td>'
        f'<td class="n">{tag} {value_html(measured)}</td><td class="n">{error_html(row)}</td></tr>'
    )


def value_html(value: Value | None) -> str:
    """Return a value with its spread at the pointer; a dash for none."""
    if value is None or value.value is None:
        return '<span class="aiinfra-none">\u2013</span>'
    spread = ""
    if value.low is not None and value.high is not None and value.value:
        ends = tr("{low} to {high}", low=show(value.quantity, value.low), high=show(value.quantity, value.high))
        spread = f" title='{escape(ends)}; {escape(told(value.how))}'"
    return f"<span{spread}>{escape(show(value.quantity, value.value))}</span>"


def error_html(row: Row | None) -> str:
    """Return the relative error, or how many times too much it is."""
    if row is None or row.relative_error is None:
        return '<span class="aiinfra-none">\u2013</span>'
    return _error(row.relative_error)


def _error(relative: float) -> str:
    return f"{relative + 1:.3g}\u00d7" if abs(relative) >= 10 else f"{relative:+.0%}".replace("-", "\u2212")


def _empty(text: str) -> str:
    return f'<p class="aiinfra-empty">{escape(text)}</p>'
