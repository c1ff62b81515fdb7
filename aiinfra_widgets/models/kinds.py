"""What a rank does in a stretch of a step: names that records, charts and schedules share."""

from __future__ import annotations

#: What a rank does in a stretch of a step: the code that a record holds is the index here. Name, and part of a step (its colour).
KINDS = (
    ("Forward", "compute"),
    ("Backward", "compute"),
    ("Communication", "communication"),
    ("Bubble", "bubble"),
    ("Update", "compute"),
    ("Data", "data"),
    ("Waiting", "wait"),  # for the slowest rank; a bubble is of the schedule's making
)
FORWARD, BACKWARD, COMMUNICATION, BUBBLE, UPDATE, DATA, WAITING = range(len(KINDS))
