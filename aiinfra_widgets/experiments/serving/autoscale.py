"""Who changes the number of servers besides a person: small policies, each a pure function of what was seen.

Two of the three look only at what was *offered*, by intended arrival in fixed bins of time; the same trace then gives the
same decisions, however busy the machine is. The queue that the third looks at is measured, so it repeats itself only
where the service does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .spec import ServingSpec

#: Seconds between two decisions.
EVERY_S = 0.5
#: The load is averaged over so many of them.
LOOK_BACK = 4
#: Servers leave when none of the last so many decisions wanted them; they come at once.
PATIENCE = 6
#: A trend is drawn through so many bins, and carried so many ahead.
TREND, AHEAD = 8, 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What a policy decides on.

    Attributes:
        offered: Work that arrived per second, in seconds of service: the number of servers that it would keep busy.
        in_system: Requests that wait or are served.
        servers: At work now.
    """

    offered: float
    in_system: int
    servers: int


class Bins:
    """What was offered in bins of EVERY_S of the load's clock, by intended arrival; from the first whole bin on.

    Args:
        clock_s: When somebody begins to look.
    """

    def __init__(self, clock_s: float) -> None:
        self._next = math.ceil(clock_s / EVERY_S)
        self._sizes: dict[int, float] = {}

    def add(self, clock_s: float, size: float) -> None:
        """Count a request that was meant to arrive then."""
        place = math.floor(clock_s / EVERY_S)
        if place >= self._next:
            self._sizes[place] = self._sizes.get(place, 0.0) + size

    def over(self, clock_s: float) -> Iterator[tuple[float, float]]:
        """Yield (end, size per second) of every bin that is over and was not told yet."""
        while (self._next + 1) * EVERY_S <= clock_s:
            size = self._sizes.pop(self._next, 0.0)
            self._next += 1
            yield self._next * EVERY_S, size / EVERY_S


class Autoscaler(Protocol):
    """A policy: called every EVERY_S."""

    def wanted(self, seen: Seen) -> int:
        """Return how many servers there should be, before any limit."""


class TargetUtilization:
    """So many servers that the load of the last seconds keeps them busy for a given share of their time."""

    def __init__(self, target: float) -> None:
        self.target = target
        self._offered: deque[float] = deque(maxlen=LOOK_BACK)

    def wanted(self, seen: Seen) -> int:
        """See Autoscaler."""
        self._offered.append(seen.offered)
        return math.ceil(float(np.mean(self._offered)) / self.target)


class QueueLength:
    """As the horizontal pod autoscaler does: the present number, times what each holds over what it should hold."""

    def __init__(self, target: float) -> None:
        self.target = target

    def wanted(self, seen: Seen) -> int:
        """See Autoscaler."""
        return math.ceil(seen.in_system / self.target)


class Predictive:
    """Target utilisation for the load that a straight line through the last seconds foretells."""

    def __init__(self, target: float) -> None:
        self.target = target
        self._offered: deque[float] = deque(maxlen=TREND)

    def wanted(self, seen: Seen) -> int:
        """See Autoscaler."""
        self._offered.append(seen.offered)
        load = float(np.mean(self._offered))
        if len(self._offered) > 2:
            at = np.arange(len(self._offered), dtype=float) - (len(self._offered) - 1) / 2
            slope = float(at @ np.array(self._offered) / (at @ at))
            load += slope * (float(at[-1]) + AHEAD)
        return math.ceil(load / self.target)


KINDS: dict[str, Callable[[float], Autoscaler]] = {
    "target-utilization": TargetUtilization,
    "queue-length": QueueLength,
    "predictive": Predictive,
}


class Steady:
    """A policy within its limits: it grows at once, and shrinks only to what none of its last decisions exceeded.

    Args:
        spec: Names the policy, its target and the most servers.
    """

    def __init__(self, spec: ServingSpec) -> None:
        self.policy: Autoscaler = KINDS[spec.autoscaler](spec.autoscaler_target)
        self.most = spec.most_servers
        self._wanted: deque[int] = deque(maxlen=PATIENCE)

    def decide(self, seen: Seen) -> int:
        """Return how many servers there should be now."""
        self._wanted.append(min(max(self.policy.wanted(seen), 1), self.most))
        return max(self._wanted) if len(self._wanted) == PATIENCE else max(seen.servers, *self._wanted)
