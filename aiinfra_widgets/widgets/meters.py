"""A run at a glance: time, energy, money and carbon, what was predicted and what came out, each with where it comes from. Pure HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..experiment import Experiment
from ..quantities import QUANTITIES, Value, quantity, show
from ..runs.reader import Segment
from ..texts import N_, told, tr
from .compare import error_html
from .state import Look
from .terms import WORDS, explained_html
from .words import difference, lowered, plural

#: A price of one step below this is told for a million of them.
LEAST_USD = 1e-3
#: What is summed over the run, and why it may be missing.
METERS = {
    "cost_usd": N_("this experiment states no price"),
    "energy_j": N_("no counter here, and no power was calibrated: aiinfra calibrate"),
    "operational_gco2e": N_("it follows from the energy"),
}


def total(segments: Sequence[Segment], name: str) -> Value | None:
    """Return quantity `name` summed over the segments, with the weakest method among them; None where none is known."""
    known = [v for s in segments if (v := s.values.get(name)) is not None and v.value is not None]
    if not known:
        return None
    order = ("assumed", "modelled", "published", "measured")
    weakest = min((v.method for v in known), key=order.index)
    how = "; ".join(dict.fromkeys(v.how for v in known if v.how))
    return Value(name, sum(float(v.value) for v in known), method=weakest, how=how)


def rate(segments: Sequence[Segment], name: str) -> str:
    """Return what one of something costs in the newest segment, `8.2 mJ per step`: the same word and unit, and a "per".

    Args:
        segments: Of the run, oldest first.
        name: Of the meter; for `energy_j` it looks for `energy_per_..._j`.
    """
    q = quantity(name)
    start = name.split("_")[0] + "_per_"
    for other, value in segments[-1].values.items() if segments else ():
        known = QUANTITIES.get(other)
        if known and other.startswith(start) and known.unit == q.unit and value.value is not None:
            unit = known.label.partition(" per ")[2] or N_("unit")
            if q.unit == "USD" and value.value < LEAST_USD:
                many = show(other, 1e6 * value.value)
                return tr("{amount} per million {units}", amount=many, units=plural(unit))
            return tr("{amount} per {unit}", amount=show(other, value.value), unit=tr(unit))
    return ""


def glance_html(exp: Experiment, look: Look) -> str:
    """Return what a person sees at a glance: what it costs so far, what was predicted, what came out, why they differ.

    Args:
        exp: Names the main quantity.
        look: What is known now; nothing is said before a run has begun.
    """
    if not look.segments or not exp.compared:
        return ""
    lasted = show("s", sum(s.elapsed_s for s in look.segments))
    costs = _tile(tr("Time"), lasted, "measured", "", tr("From the first tick to the last."))
    costs += "".join(_meter(look.segments, name) for name in METERS)
    main = f'<div class="aiinfra-glance-main">{_outcome(exp, look)}</div>'
    return f'<div class="aiinfra-glance">{main}<div class="aiinfra-glance-cost">{costs}</div></div>'


def _outcome(exp: Experiment, look: Look) -> str:
    """The newest segment that settled, else the newest: predicted, measured, the error with its main cause."""
    settled = [c for c in look.comparisons if not c.segment.transient] or list(look.comparisons)
    if not settled:
        return ""
    last, name = settled[-1], exp.compared[0]
    row, q = last.row(name), quantity(name)
    predicted, measured = (row.predicted, row.measured) if row else (None, None)
    where = difference(look.comparisons[0].segment.spec if len(settled) > 1 else None, last.segment.spec)
    tiles = _side("predicted", q.label, predicted, tr("no prediction")) + _side(
        "measured", q.label, measured, tr("not yet")
    )
    if last.segment.transient:
        need = exp.settle_ticks + exp.min_ticks
        why = tr(
            "{done} of the {need} {ticks} that a comparison needs",
            done=last.segment.ticks,
            need=need,
            ticks=plural(exp.tick),
        )
        return tiles + _why(tr("Settling"), why)
    if row is None or row.relative_error is None:
        return tiles + _why(tr("Not compared"), " ".join(told(c) for c in last.causes[:1]))
    text = " ".join(told(c) for c in last.causes[:1])
    return tiles + _why(f"{error_html(row)}, {tr(row.verdict)}", text, where)


def _side(role: str, label: str, value: Value | None, otherwise: str) -> str:
    """One side of the comparison: its mark, its number, its band or spread, where it comes from."""
    titles = {"predicted": tr("Predicted"), "measured": tr("Measured")}
    if value is None or value.value is None:
        shown, spread, method = f'<b class="aiinfra-none">{escape(otherwise)}</b>', "", ""
    else:
        shown, method = f"<b>{escape(show(value.quantity, value.value))}</b>", tag_html(value.method, value.how)
        known = value.low is not None and value.high is not None
        spread = (
            tr("{low} to {high}", low=show(value.quantity, value.low), high=show(value.quantity, value.high))
            if known
            else ""
        )
    mark = f'<i class="aiinfra-mark aiinfra-mark-{role}"></i>'
    head = f'<span class="aiinfra-meter-label">{mark}{escape(titles[role])}: {escape(lowered(label))}</span>'
    return f'<div class="aiinfra-tile">{head}{shown}<small>{method} {escape(spread)}</small></div>'


def _why(verdict: str, text: str, where: str = "") -> str:
    small = f"<small>{escape(where)}</small>" if where else ""
    head = f'<span class="aiinfra-meter-label">{escape(tr("Difference"))}</span><b>{verdict}</b>'
    return f'<div class="aiinfra-tile aiinfra-tile-why">{head}<p>{escape(text)}</p>{small}</div>'


def _tile(label: str, value: str, method: str, more: str, help_: str, how: str = "") -> str:
    head = f'<span class="aiinfra-meter-label">{explained_html(label, help_)}</span>'
    return f'<div class="aiinfra-tile">{head}<b>{escape(value)}</b><small>{tag_html(method, how)} {escape(more)}</small></div>'


def tag_html(method: str, how: str = "") -> str:
    """Return where a number comes from - measured, modelled, assumed - with the counter or the model at the pointer."""
    help_ = f"{tr(WORDS.get(method, ''))} {told(how)}".strip()
    return explained_html(tr(method), help_, "aiinfra-tag")


def _meter(segments: Sequence[Segment], name: str) -> str:
    q, value = quantity(name), total(segments, name)
    if value is not None:
        return _tile(q.label, show(name, value.value), value.method, rate(segments, name), q.help, value.how)
    head = f'<span class="aiinfra-meter-label">{explained_html(q.label, q.help)}</span>'
    none = f'<b class="aiinfra-none">{escape(tr("not known"))}</b><small>{escape(tr(METERS[name]))}</small>'
    return f'<div class="aiinfra-tile">{head}{none}</div>'


def meters_table_html(segments: Sequence[Segment]) -> str:
    """Return the same as a plain table, for a page without our style sheet."""
    rows = []
    for name, why in METERS.items():
        value = total(segments, name)
        cells = (
            (show(name, value.value), tr(value.method), told(value.how)) if value else (tr("not known"), "", tr(why))
        )
        shown = (quantity(name).label, cells[0], rate(segments, name), cells[1], cells[2])
        rows.append("".join(f"<td>{escape(c)}</td>" for c in shown))
    head = "".join(f"<th>{escape(t)}</th>" for t in ("", tr("So far"), tr("Now"), tr("Method"), tr("How")))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{r}</tr>' for r in rows)}</tbody></table>"
