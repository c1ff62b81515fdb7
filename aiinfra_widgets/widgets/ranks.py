"""The map of the ranks: who works, on what, how far. Pure HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from ..experiment import Experiment
from ..quantities import quantity, show
from .state import Look

#: More nodes than this are drawn small, without words.
WORDY = 16


def ranks_html(exp: Experiment, look: Look) -> str:
    """Return one tile per rank: its state, its last tick, and its last tick's time split into parts.

    Args:
        exp: Names the parts.
        look: What is known now.
    """
    if not look.nodes:
        return '<p class="aiinfra-empty">Each rank that is started has a tile here: what it does, and how its time splits.</p>'
    small = len(look.nodes) > WORDY
    most = max((_total(exp, look.latest.get(n, {})) for n in look.members), default=0.0)
    tiles = "".join(_tile(exp, look, n, most, small) for n in look.nodes)
    label = f"{len(look.members)} of {len(look.nodes)} ranks at work"
    return (
        f'<div class="aiinfra-ranks{" aiinfra-small" if small else ""}" role="list" aria-label="{label}">{tiles}</div>'
    )


def state_of(look: Look, node: int) -> str:
    """Return what a node does: lost, idle, paused, ended or working."""
    if node in look.lost:
        return "lost"
    if not look.going:
        return "ended"
    if node not in look.members:
        return "idle"
    return "paused" if look.paused else "working"


def _tile(exp: Experiment, look: Look, node: int, most: float, small: bool) -> str:
    state, sample = state_of(look, node), look.latest.get(node, {})
    tick = f"{exp.tick} {int(sample['tick'])}" if sample else ""
    total = _total(exp, sample)
    bar = _bar(exp, sample, most) if state in {"working", "paused"} and sample else '<div class="aiinfra-bar"></div>'
    time = show(exp.compared[0], total) if total and state in {"working", "paused"} else ""
    title = f"node {node}: {state}" + (f", {tick}" if tick else "") + (f", {time}" if time else "")
    words = "" if small else f'<span class="aiinfra-rank-state">{state}</span>'
    more = (
        "" if small else f'<div class="aiinfra-rank-foot"><span>{escape(tick)}</span><span>{escape(time)}</span></div>'
    )
    return (
        f'<div class="aiinfra-rank aiinfra-rank-{state}" role="listitem" title="{escape(title)}">'
        f'<div class="aiinfra-rank-head"><b>{node}</b>{words}</div>{bar}{more}</div>'
    )


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


def _total(exp: Experiment, sample: Mapping[str, float]) -> float:
    return sum(v for p in exp.parts if math.isfinite(v := sample.get(p, 0.0)))
