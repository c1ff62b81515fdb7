"""How several setups are shown side by side: a table whose first column is also the legend of the curves below. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..experiment import Experiment
from ..quantities import quantity, show
from ..texts import tr
from .compare import both_html, error_html
from .figures import Chart, Columns, Key, axis_of, bk, canvas, falls_by_orders, follow, source
from .theme import LABELS, dress
from .words import plural

CHART = "variants"


def table_html(
    exp: Experiment, variants: Sequence[Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str], curve: str
) -> str:
    """Return one row for each setup.

    Args:
        exp: Names the main quantity.
        variants: `Variant` objects.
        rows: Of `Variants.results`, in the same order.
        names: Quantities with a column each; what was predicted stands below in small type.
        curve: The quantity of the curves.
    """
    main = exp.compared[0]
    titles = [
        quantity(main).label, tr("Error"), *(quantity(n).label for n in names),
        tr("{quantity} at the end", quantity=quantity(curve).label), tr("Off the first"),
    ]  # fmt: skip
    head = f"<th>{escape(tr('Setup'))}</th>" + "".join(f'<th class="n">{escape(t)}</th>' for t in titles)
    body = "".join(_row(main, v, row, names, curve, i) for i, (v, row) in enumerate(zip(variants, rows, strict=True)))
    title = escape(tr("Each from the same beginning; in small type what was predicted"))
    return f'<table class="aiinfra-table"><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(main: str, variant: Any, row: Mapping[str, Any], names: Sequence[str], curve: str, place: int) -> str:
    name = f'<th><i class="aiinfra-dot" style="background:{LABELS[place]}"></i>{escape(variant.name)}</th>'
    if variant.problem:
        return f'<tr>{name}<td colspan="{len(names) + 4}">{escape(variant.problem)}</td></tr>'
    if variant.comparison is None:
        return f'<tr>{name}<td colspan="{len(names) + 4}">{escape(tr("not measured yet"))}</td></tr>'
    found = variant.comparison.row(main)
    cells = [both_html(found), error_html(found)]
    cells += [both_html(variant.comparison.row(n)) for n in names]
    cells += [show(curve, row[curve]), tiny(row["difference_to_first_frac"]) if place else "\u2013"]
    return f"<tr>{name}" + "".join(f'<td class="n">{c}</td>' for c in cells) + "</tr>"


def tiny(share: float | None) -> str:
    """Return a share that may be very small: `12 %`, `0.3 %`, then powers of ten; equal is `equal`."""
    if share is None or not math.isfinite(share):
        return "\u2013"
    if share == 0:
        return tr("equal")
    if share >= 1e-3:
        return f"{share:.2g}" if share >= 10 else f"{100 * share:.2g} %"
    power = math.floor(math.log10(share))
    return f"{share / 10**power:.0f}\u00b710<sup>\u2212{-power}</sup>"


def curves_chart(curve: str, names: Sequence[str], tick: str, data: Mapping[str, Columns]) -> Chart:
    """Draw one line for each setup; the first is wide and pale, so that a line right on it is seen.

    Args:
        curve: The quantity.
        names: Of the setups.
        tick: What one tick is called.
        data: From `sources`; empty where a live view fills it.
    """
    q, axis = quantity(curve), axis_of(curve)
    more = {"y_axis_type": "log"} if falls_by_orders(curve) else {}
    fig = canvas(230, y_range=follow(data, 0.1, 10), **more)
    keys = []
    for i, name in enumerate(names):
        src = source(data, f"curve{i}", ("tick", "value"))
        width, alpha = (6, 0.4) if i == 0 else (1.6, 1.0)
        line = fig.line("tick", "value", source=src, line_color=LABELS[i], line_width=width, line_alpha=alpha)
        tips = [("", name), (tr(tick).capitalize(), "@tick{0}"), (q.label, f"@value{{0.[0000]}} {axis.unit}".rstrip())]
        fig.add_tools(bk.HoverTool(renderers=[line], tooltips=tips))
        keys.append(Key(name, "line", LABELS[i], (line,)))
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr(tick).capitalize(), axis.label(q.label)
    title = tr("{quantity} of each setup", quantity=q.label)
    empty = tr("The curves appear here: {ticks} from left to right, a line for each setup.", ticks=plural(tick))
    return Chart(
        CHART,
        dress(fig),
        empty,
        tr("{quantity} over {ticks}, for each setup", quantity=q.label, ticks=plural(tick)),
        title,
        tuple(keys),
    )


def sources(curve: str, lines: Sequence[tuple[Any, Any]]) -> dict[str, Columns]:
    """Return the sources of `curves_chart` and the span of its y axis.

    Args:
        curve: The quantity.
        lines: Ticks and values of each setup, base units.
    """
    axis = axis_of(curve)
    found: dict[str, Columns] = {
        f"curve{i}": {"tick": at, "value": values * axis.factor} for i, (at, values) in enumerate(lines)
    }
    every = np.concatenate([c["value"] for c in found.values()])
    known = every[np.isfinite(every) & ((every > 0) | (not falls_by_orders(curve)))]
    if known.size:
        low, high = float(known.min()), float(np.percentile(known, 99.5))
        if falls_by_orders(curve):
            found["span"] = {"start": low / 1.15, "end": max(high, low) * 1.15}
        else:
            found["span"] = {"start": 0.0, "end": 1.15 * high}
    return found
