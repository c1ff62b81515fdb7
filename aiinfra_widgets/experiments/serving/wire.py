"""What the desk and the servers say to each other: rows of float64, one message kind each. No pickle.

# n tickets of a message, one row each
"""

from __future__ import annotations

#: Desk to server: rows of TICKET; serve these.
WORK = 71
#: Server to desk: rows of ANSWER.
DONE = 72
#: Desk to server: one row of WINDOW; the window is over.
WINDOW_END = 73
#: Server to desk: nothing of mine is under way any more, and the next boundary changes something.
READY = 74

#: `ready_s` is when the batch was meant to begin at the earliest: it waited for more requests until then.
TICKET = ("number", "size", "arrived_s", "ready_s")
ANSWER = ("number", "started_s", "ended_s", "first_token_s")
#: verdict of the boundary, 1 when the load is over, monotonic end of the window; then what the next desk must know if this
#: one dies: seconds of load so far, requests so far, and how many of them have no outcome yet.
WINDOW = ("verdict", "over", "ended_s", "clock_s", "requests", "unanswered")
