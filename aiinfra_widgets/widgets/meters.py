"""Money, energy and carbon of a run, each with where the number comes from. Pure HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..quantities import Value, quantity, show
from ..runs.reader import Segment

#: What is summed over the run, and the rate that stands beside it where the experiment knows one.
METERS = (("cost_usd", "cost_per_step_usd"), ("energy_j", "energy_per_step_j"), ("operational_gco2e", ""))
NEED = {
    "cost_usd": "this experiment states no price",
    "energy_j": "no counter here, and no power was calibrated",
    "operational_gco2e": "it follows from the energy",
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


def meters_html(segments: Sequence[Segment], tick: str) -> str:
    """Return the three meters: the total so far, its provenance, and what one tick costs now.

    Args:
        segments: Of the run, oldest first.
        tick: What one tick is called.
    """
    return f'<div class="aiinfra-meters">{"".join(_meter(segments, *names, tick) for names in METERS)}</div>'


def _meter(segments: Sequence[Segment], name: str, rate: str, tick: str) -> str:
    q, value = quantity(name), total(segments, name)
    head = f'<span class="aiinfra-meter-label" title="{escape(q.help)}">{escape(q.label)}</span>'
    if value is None:
        why = NEED[name] if segments else "nothing has run yet"
        return (
            f'<div class="aiinfra-meter">{head}<b class="aiinfra-none">not known</b><small>{escape(why)}</small></div>'
        )
    now = segments[-1].values.get(rate) if rate else None
    per = f"{show(rate, now.value)} per {tick}" if now is not None and now.value is not None else ""
    return (
        f'<div class="aiinfra-meter">{head}<b>{escape(show(name, value.value))}</b>'
        f'<small><span class="aiinfra-tag" title="{escape(value.how)}">{escape(value.method)}</span> {escape(per)}</small></div>'
    )


def meters_table_html(segments: Sequence[Segment], tick: str) -> str:
    """Return the same as a plain table, for a page without our style sheet."""
    rows = []
    for name, rate in METERS:
        value = total(segments, name)
        now = segments[-1].values.get(rate) if rate and segments else None
        per = show(rate, now.value) if now is not None else ""
        cells = (show(name, value.value), value.method, value.how) if value else ("not known", "", NEED[name])
        rows.append("".join(f"<td>{escape(c)}</td>" for c in (quantity(name).label, cells[0], per, cells[1], cells[2])))
    head = "".join(f"<th>{escape(t)}</th>" for t in ("", "So far", f"Per {tick} now", "Method", "How"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{r}</tr>' for r in rows)}</tbody></table>"
