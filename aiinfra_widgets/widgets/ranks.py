"""The map of the ranks: who works, on what, how far. Pure HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from ..experiment import Experiment
from ..quantities import quantity, show
from ..texts import N_, tr
from .state import Look

#: More nodes than this are drawn small, without words.
WORDY = 16
#: What a tile says of a node where an experiment does not split its tick into parts, and what its tooltip says.
TOLD, TOLD_HOVER = 2, 8
#: What the runtime measures on every node.
ALWAYS = ("cpu_time_s", "memory_bytes")


def ranks_html(exp: Experiment, look: Look) -> str:
    """Return one tile per rank: its state, its last tick, and what it reports: the parts of its tick, or its own quantities.

    Args:
        exp: Names the parts, and what is compared.
        look: What is known now.
    """
    if not look.nodes:
        split = tr("Each rank that is started has a tile here: what it does, and how its time splits.")
        text = (
            split if exp.parts else tr("Each rank that is started has a tile here: what it does, and what it reports.")
        )
        return f'<p class="aiinfra-empty">{escape(text)}</p>'
    small = len(look.nodes) > WORDY
    most = max((_total(exp, look.latest.get(n, {})) for n in look.members), default=0.0)
    tiles = "".join(_tile(exp, look, n, most, small) for n in look.nodes)
    label = escape(tr("{some} of {all} ranks at work", some=len(look.members), all=len(look.nodes)))
    return (
        f'<div class="aiinfra-ranks{" aiinfra-small" if small else ""}" role="list" aria-label="{label}">{tiles}</div>'
    )


def state_of(look: Look, node: int) -> str:
    """Return what a node does: lost, idle, paused, ended or working."""
    if node in look.lost:
        return N_("lost")
    if not look.going:
        return N_("ended")
    if node not in look.members:
        return N_("idle")
    return N_("paused") if look.paused else N_("working")


def coordinates(exp: Experiment, look: Look, node: int) -> bool:
    """Whether a node decides for the others and does none of their work: the first of those at work."""
    return node in look.members[: exp.spec.coordinators]


def reported(exp: Experiment, sample: Mapping[str, float]) -> dict[str, float]:
    """Return what a node's newest sample says, most important first; nodes report different things."""
    own = (q.name for q in exp.quantities)
    known = dict.fromkeys((*exp.compared, *exp.live_series, *own, *ALWAYS))
    return {n: v for n in known if math.isfinite(v := sample.get(n, math.nan))}


def _tile(exp: Experiment, look: Look, node: int, most: float, small: bool) -> str:
    state, sample = state_of(look, node), look.latest.get(node, {})
    at_work = state in {"working", "paused"}
    role = tr("coordinator") if coordinates(exp, look, node) else ""
    tick = tr("{tick} {number}", tick=tr(exp.tick), number=int(sample["tick"])) if sample else ""
    total = _total(exp, sample)
    bar, told, hover = '<div class="aiinfra-bar"></div>', "", []
    if at_work and (total or (exp.parts and not sample)):
        bar = _bar(exp, sample, most)
        hover = [show(exp.compared[0], total)] if total else []
        told = f"<span>{escape(hover[0])}</span>" if total else ""
    elif at_work:
        found = reported(exp, sample)
        share = next((n for n in found if quantity(n).unit == "frac"), "")
        bar = _share(share, found[share]) if share else ""
        hover = [_said(n, v) for n, v in list(found.items())[:TOLD_HOVER]]
        told = "".join(f"<span>{escape(h)}</span>" for h in hover[:TOLD])
    title = ", ".join(
        [tr("node {number}: {state}", number=node, state=tr(state)), *(w for w in (role, tick) if w), *hover]
    )
    words = "" if small else f'<span class="aiinfra-rank-state">{escape(tr(state))}</span>'
    foot = f"<span>{escape(role)}</span>" * bool(role) + f"<span>{escape(tick)}</span>{told}"
    own = "" if exp.parts and not exp.spec.coordinators else " aiinfra-rank-own"
    more = "" if small else f'<div class="aiinfra-rank-foot{own}">{foot}</div>'
    return (
        f'<div class="aiinfra-rank aiinfra-rank-{state}" role="listitem" title="{escape(title)}">'
        f'<div class="aiinfra-rank-head"><b>{node}</b>{words}</div>{bar}{more}</div>'
    )


def _said(name: str, value: float) -> str:
    """`Utilisation 63 %`; a unit that the label names already is left out."""
    q, text = quantity(name), show(name, value)
    return f"{q.label} {text.removesuffix(f' {q.unit}') if q.unit in q.label.lower().split() else text}"


def _bar(exp: Experiment, sample: Mapping[str, float], most: float) -> str:
    pieces = []
    for part in exp.parts:
        value = sample.get(part, 0.0)
        if most and math.isfinite(value) and value > 0:
            q = quantity(part)
            width = 100 * value / most
            title = escape(f"{q.label}: {show(part, value)}")
            pieces.append(f'<i style="width:{width:.2f}%;background:var(--aiinfra-{q.part})" title="{title}"></i>')
    return f'<div class="aiinfra-bar">{"".join(pieces)}</div>'


def _share(name: str, value: float) -> str:
    """A share of one as a bar."""
    title = escape(f"{quantity(name).label}: {show(name, value)}")
    width = 100 * min(max(value, 0.0), 1.0)
    return f'<div class="aiinfra-bar"><i style="width:{width:.2f}%;background:var(--aiinfra-measured)" title="{title}"></i></div>'


def _total(exp: Experiment, sample: Mapping[str, float]) -> float:
    return sum(v for p in exp.parts if math.isfinite(v := sample.get(p, 0.0)))
