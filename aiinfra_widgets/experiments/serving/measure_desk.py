"""Rank 0 at the desk: an open-loop load with a clock of its own, and the handing out of what arrives.

No coordinated omission: a request counts from when it was meant to arrive, also where the desk itself was late. How late it
was is measured, and said.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

from ...ranks.node import Node
from . import wire
from .autoscale import Bins, Seen, Steady
from .desk import Desk, Outcome, Request
from .load import Load
from .measure_server import POLL_S
from .spec import ServingSpec
from .windows import Window

if TYPE_CHECKING:
    from .measure_front import Gate

#: A generator that is later than this does not offer the load that was asked for; said at most every so often.
LATE_S, SAY_S = 0.005, 2.0


class DeskRole:
    """The desk's side of the conversation, and the load in front of it.

    Args:
        spec: What is asked.
        node: This rank.
        known: What every rank knows of the desk: seconds of load so far, requests so far, how many have no outcome.
        takes_over: The rank that was the desk died, and who waited there is lost.
    """

    def __init__(self, spec: ServingSpec, node: Node, known: np.ndarray, *, takes_over: bool = False) -> None:
        self.node, self.known, self.spec = node, known, spec
        clock_s, requests, unanswered = known.tolist()
        self.load = Load(spec, clock_s)
        self.desk = Desk(spec, max(node.size - 1, 1), seed=spec.seed)
        self.gate = _gate(spec, node)
        self.scaler: Steady | None = None
        self._origin_s = math.nan  # set when the first window begins, and every server is ready
        self._paused_s = node.paused_s
        self._requests = int(requests)
        self._ended: list[Request] = []
        self._posted: deque[tuple[Any, np.ndarray]] = deque()
        self._said_s = -math.inf
        self._bins = Bins(clock_s)
        self._unit_s = 0.0
        self._asked = spec.nodes
        if takes_over:
            lost = f"{int(unanswered)} requests that the desk had not answered died with it"
            node.event("desk-lost", requests=int(unanswered), message=f"{lost}; the load goes on at {clock_s:.1f} s")

    # --- the clock ----------------------------------------------------------------------------------------------
    def _clock_s(self, now: float) -> float:
        return now - self._origin_s - self.node.paused_s

    def _monotonic_s(self, clock_s: float) -> float:
        return clock_s + self._origin_s + self.node.paused_s

    # --- what the runtime asks ----------------------------------------------------------------------------------
    def join(self, spec: ServingSpec) -> None:
        """Take up a changed Spec or set of servers; what was with a server that is gone is handed out again."""
        same = (spec.autoscaler, spec.autoscaler_target, spec.most_servers) == (
            self.spec.autoscaler, self.spec.autoscaler_target, self.spec.most_servers,
        )  # fmt: skip
        if not same or (self.scaler is None and spec.autoscaler != "none"):
            self.scaler = Steady(spec) if spec.autoscaler != "none" else None
            self._bins = Bins(float(self.known[0]))
        self.load.change(spec)
        if spec.nodes != self.spec.nodes:
            self._asked = spec.nodes  # whoever asked for it; until then what the autoscaler asked for is on its way
        self.spec = spec
        self.desk.configure(spec, self.node.size - 1)

    def window(self) -> dict[str, float] | None:
        """Offer, hand out and take answers for one window; None when the load is over."""
        spec, node = self.spec, self.node
        now = time.monotonic()
        if math.isnan(self._origin_s):
            self._origin_s = now - float(self.known[0]) - node.paused_s
        if node.paused_s > self._paused_s and not self.gate:  # real callers wait on
            self.desk.postpone(node.paused_s - self._paused_s)
        self._paused_s = node.paused_s
        window, end_s = Window(now), now + spec.window_s
        self._ended.clear()
        self.load.fetch(self._clock_s(end_s))
        while True:
            now = time.monotonic()
            self._turn(now, window)
            if now >= end_s or node.ballot:
                break
            wake_s = min(end_s, self._monotonic_s(self.load.next_s), self.desk.next_s())
            served = self.gate is not None or any(self.desk.busy)
            time.sleep(max(min(wake_s - time.monotonic(), POLL_S if served else spec.window_s), 0.0))
        over = self._clock_s(now) >= spec.duration_s
        self.known[:] = self._clock_s(now), self._requests, self.desk.waiting + sum(len(b) for b in self.desk.busy)
        self._tell_all(node.ballot, over, now)
        if node.ballot:
            self._wait_ready(window)
        node.verdict = node.ballot
        if over:
            return None
        self._scale(now)
        self._say_late(window, now)
        return window.sample(self._ended, time.monotonic())

    def close(self) -> None:
        """Give every request that is left its outcome."""
        self.desk.unfinished()
        self._write()
        if self.gate:
            self.gate.close()

    # --- one turn -----------------------------------------------------------------------------------------------
    def _turn(self, now: float, window: Window, *, hand_out: bool = True) -> int:
        """Take answers, take arrivals, let clients give up, hand out; return how many servers said that they are ready."""
        ready = self._receive()
        window.look(now, self.desk.waiting)
        if hand_out:
            self._hand_out(now)
        clock_s = self._clock_s(now)
        self.load.fetch(clock_s)
        for at_s, size in self.load.due(clock_s):
            self._arrive(self._monotonic_s(at_s), at_s, size, window)
            if hand_out:
                self._hand_out(now)
        if self.gate:
            for call in self.gate.poll():
                self._arrive(
                    call.arrived_s, self._clock_s(call.arrived_s), self.load.size() * call.size, window, call.id
                )
        self.desk.tend(now)
        if hand_out:
            self._hand_out(now)
        self._write()
        return ready

    def _arrive(self, arrived_s: float, clock_s: float, size: float, window: Window, call: int = -1) -> None:
        """Let a request come in that was meant to arrive then, by the monotonic clock and by the load's."""
        sent_s = time.monotonic()
        if call < 0:
            window.lateness_s.append(sent_s - arrived_s)
        self._requests += 1
        window.arrived += 1
        if self.scaler:
            self._bins.add(clock_s, size)
        self.desk.arrive(Request(self._requests, arrived_s, size, self.node.segment, call=call, sent_s=sent_s), sent_s)

    def _hand_out(self, now: float) -> None:
        for server, batch in self.desk.assign(now):
            ready_s = self.desk.ready_s(batch)
            rows = [(t.number, t.request.size, t.queued_s, ready_s) for t in batch]
            self._post(np.array(rows, float), server, wire.WORK)

    def _post(self, message: np.ndarray, server: int, tag: int) -> None:
        """Send without waiting: MPI keeps only so much for a server that is long at work and does not look."""
        while self._posted and _delivered(self._posted[0][0]):
            self._posted.popleft()
        self._posted.append((self.node.comm.Isend(message, server + 1, tag), message))

    def _receive(self) -> int:
        comm, status, ready = self.node.comm, MPI.Status(), 0
        while comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            source, tag = status.Get_source(), status.Get_tag()
            message = np.empty(status.Get_count(MPI.DOUBLE))
            comm.Recv(message, source, tag)
            if tag == wire.READY:
                ready += 1
                continue
            now = time.monotonic()
            for number, started_s, ended_s, first_s in message.reshape(-1, len(wire.ANSWER)).tolist():
                self.desk.answered(source - 1, int(number), (started_s, ended_s, first_s), now)
        return ready

    def _tell_all(self, verdict: int, over: bool, now: float) -> None:
        message = np.array([verdict, over, now, *self.known], float)
        for server in range(self.node.size - 1):
            self._post(message, server, wire.WINDOW_END)

    def _wait_ready(self, window: Window) -> None:
        """Something changes at this boundary: wait until no server has anything under way; what arrives is queued."""
        left = self.node.size - 1
        while left:
            left -= self._turn(time.monotonic(), window, hand_out=False)
            time.sleep(POLL_S)

    def _write(self) -> None:
        """Record every request that got its outcome."""
        for r in self.desk.finished:
            assert r.outcome is not None
            row = (r.id, r.arrived_s, r.started_s, r.ended_s, r.received_s, r.server, int(r.outcome), r.tries, r.batch)
            self.node.record("requests", r.segment, (*row, r.first_token_s, r.size, r.sent_s))
            if self.gate and r.call >= 0:
                self.gate.answer(r.call, Outcome(r.outcome).name.lower(), r.server, r.received_s - r.arrived_s)
        self._ended.extend(self.desk.finished)
        self.desk.finished.clear()

    # --- what it says by itself ---------------------------------------------------------------------------------
    def _scale(self, now: float) -> None:
        """Let the autoscaler decide on every bin of time that is over, and ask as a person would."""
        if self.scaler is None:
            return
        for end_s, size_per_s in self._bins.over(self._clock_s(now)):
            offered = size_per_s * self._work_s()
            in_system = self.desk.waiting + sum(len(b) for b in self.desk.busy)
            wanted = self.scaler.decide(Seen(offered, in_system, self._asked))
            if wanted != self._asked:
                seen = {"offered": offered, "in_system": in_system, "clock_s": end_s}
                self.node.event("autoscaled", servers=wanted, before=self._asked, **seen)
                here = {} if self.spec.slow_node < wanted else {"slow_node": -1}  # its place is gone
                self.node.ask(self.spec, {"nodes": wanted, **here}, by="autoscaler")
                self._asked = wanted

    def _work_s(self) -> float:
        """Seconds of service in one unit of size: 1 where sizes are seconds, else as measured on the last answers."""
        if self.spec.service == "synthetic":
            return 1.0
        times: list[Any] = [(r.ended_s - r.started_s) / max(r.batch, 1) / r.size for r in self._ended if r.batch]
        self._unit_s = float(np.mean(times)) if times else self._unit_s
        return self._unit_s

    def _say_late(self, window: Window, now: float) -> None:
        late_s = max(window.lateness_s, default=0.0)
        if late_s > LATE_S and now - self._said_s > SAY_S:
            self._said_s = now
            what = f"a request was sent {late_s * 1e3:.1f} ms after it was meant to arrive"
            self.node.event(
                "generator-late", lateness_s=late_s, message=f"{what}; its response counts from when it was meant to"
            )


def _delivered(posted: MPI.Request) -> bool:
    """Whether a message is out of our hands; also where its receiver is dead."""
    try:
        return bool(posted.Test())
    except MPI.Exception:
        return True


def _gate(spec: ServingSpec, node: Node) -> Gate | None:
    if spec.arrivals != "http":
        return None
    from .measure_front import Gate

    return Gate(node.folder)
