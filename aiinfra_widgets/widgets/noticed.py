"""What happened to a run by itself or on purpose, for the lab's log: faults, watchdogs' alarms, nodes that died. Pure HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ..faults import KINDS
from ..texts import told, tr
from .state import Look

MOST = 6


def noticed_html(tick: str, look: Look, most: int = MOST) -> str:
    """Return the newest of them, newest first, each with its next step; "" where nothing happened."""
    items = [text for event in reversed(look.events) if (text := sentence(tick, event))][:most]
    if not items:
        return ""
    return f'<div class="aiinfra-asked"><b>{escape(tr("Noticed"))}</b><ul role="log">{"".join(f"<li>{i}</li>" for i in items)}</ul></div>'


def sentence(tick: str, event: Mapping[str, Any]) -> str:
    """Return one event as HTML, "" where it is none of these."""
    at = tr("{tick} {number}", tick=tr(tick), number=event["tick"]) if event.get("tick") is not None else ""
    match event["kind"]:
        case "fault":
            kind = KINDS.get(str(event.get("fault")))
            text = tr(
                "{fault}: node {node}", fault=tr(kind.label) if kind else event.get("fault"), node=event.get("node")
            )
        case "fault-over":
            kind = KINDS.get(str(event.get("fault")))
            text = tr("over: {fault}", fault=tr(kind.label) if kind else event.get("fault"))
        case "fault-failed":
            text = tr("could not be broken: {why}", why=told(str(event.get("message", ""))))
        case "alarm" | "alarm-over" if event.get("message"):
            text = told(str(event.get("message", "")))
        case "alarm-over":
            text = tr("node {nodes} is back", nodes=", ".join(map(str, event.get("nodes", ()))))
        case "rank-lost":
            text = tr(
                "node {nodes} died; {left} left at work",
                nodes=", ".join(map(str, event.get("lost", ()))),
                left=event.get("nodes"),
            )
        case "state-lost" | "queued" if event.get("message"):
            text = told(str(event["message"]))
        case "checkpoint-given-up":
            text = tr("checkpoint given up: {why}", why=told(str(event.get("reason", ""))))
        case "resized" if event.get("spare"):
            text = tr("node {nodes} took the place", nodes=", ".join(map(str, event["spare"])))
        case _:
            return ""
    step = (
        f" <small>{escape(tr('Next'))}: {escape(told(str(event['next_step'])))}</small>"
        if event.get("next_step")
        else ""
    )
    return f"{escape(at)}{': ' if at else ''}{escape(text)}{step}"
