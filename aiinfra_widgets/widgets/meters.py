"""Money, energy and carbon of a run, each with where the number comes from. Pure HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..quantities import QUANTITIES, Value, quantity, show
from ..runs.reader import Segment
from ..texts import N_, told, tr

#: What is summed over the run, and why it may be missing.
METERS = {
    "cost_usd": N_("this experiment states no price"),
    "energy_j": N_("no counter here, and no power was calibrated"),
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
            return tr("{amount} per {unit}", amount=show(other, value.value), unit=tr(unit))
    return ""


def meters_html(segments: Sequence[Segment]) -> str:
    """Return the three meters: the total so far, its provenance, and what one of something costs now.

    Args:
        segments: Of the run, oldest first.
    """
    return f'<div class="aiinfra-meters">{"".join(_meter(segments, name) for name in METERS)}</div>'


def _meter(segments: Sequence[Segment], name: str) -> str:
    q, value = quantity(name), total(segments, name)
    head = f'<span class="aiinfra-meter-label" title="{escape(q.help)}">{escape(q.label)}</span>'
    if value is None:
        why = tr(METERS[name] if segments else N_("nothing has run yet"))
        return f'<div class="aiinfra-meter">{head}<b class="aiinfra-none">{escape(tr("not known"))}</b><small>{escape(why)}</small></div>'
    return (
        f'<div class="aiinfra-meter">{head}<b>{escape(show(name, value.value))}</b>'
        f'<small><span class="aiinfra-tag" title="{escape(told(value.how))}">{escape(tr(value.method))}</span> '
        f"{escape(rate(segments, name))}</small></div>"
    )


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
