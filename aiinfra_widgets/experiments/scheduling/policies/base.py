"""What a policy is: an order of the queue, and a plan made of three kinds of action."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from ..cluster import Cluster, Nodes
from ..jobs import Job
from ..queue import WaitingQueue


@dataclass(frozen=True, slots=True)
class Start:
    """Start a job on these nodes, or go on with one from its checkpoint. Answer: nothing, and later `finish`."""

    job: Job
    nodes: Nodes


@dataclass(frozen=True, slots=True)
class Preempt:
    """Let a job write a checkpoint and leave its nodes. Answer: `stopped`, when its nodes are free."""

    job: Job


@dataclass(frozen=True, slots=True)
class Stop:
    """Let a job leave its nodes for good, because somebody cancelled or killed it. Answer: `stopped`."""

    job: Job
    why: Literal["cancel", "kill"]


@dataclass(frozen=True, slots=True)
class Resize:
    """Go on with a running job on other nodes: all of `nodes`, and no others. Answer: `resized`."""

    job: Job
    nodes: Nodes


Action = Start | Preempt | Stop | Resize


class View(Protocol):
    """What a policy may look at: the scheduler, read only. It is up to date after each action of a plan."""

    @property
    def running(self) -> Mapping[int, Job]:
        """Jobs that hold nodes, by id."""

    @property
    def leaving(self) -> Mapping[int, Job]:
        """Those of them that were told to leave; their nodes are not free yet."""

    cluster: Cluster
    queue: WaitingQueue


class Policy(ABC):
    """Who gets the nodes. One object belongs to one scheduler.

    Attributes:
        name: In the registry and on the command line.
        title: For people.
        plans_for_none: Whether it has something to do when nobody waits.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    plans_for_none: ClassVar[bool] = False

    def key(self, job: Job, now_s: float) -> Any:
        """Return what the queue is sorted by, lowest first, of a job that joins it now."""
        return job.submit_s

    def group(self, job: Job) -> Any:
        """Return the group in which the job waits; only a policy that looks at groups needs one."""
        return None

    def least_nodes(self, job: Job) -> int:
        """Return the fewest nodes on which this policy would start the job."""
        return job.nodes

    def admit(self, view: View, job: Job, now_s: float) -> str:
        """Return why a job that is submitted now is refused, or ""."""
        return ""

    @abstractmethod
    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Yield what is to be done now; each action is carried out before the next is asked for."""

    def next_wakeup_s(self, view: View, now_s: float) -> float | None:
        """Return when the policy must be asked again although nothing happens, or None."""
        return None

    def started(self, job: Job, now_s: float) -> None:  # noqa: B027 - a hook, for policies that keep books
        """Take note that a job holds nodes now, or others than before."""

    def ended(self, job: Job, now_s: float) -> None:  # noqa: B027
        """Take note that a job holds no nodes any more; `job.on` still names those it had."""


def place(view: View, job: Job, num_nodes: int = 0) -> Nodes | None:
    """Return the nodes that best fit gives a job, by default as many as it demands, or None."""
    return view.cluster.place(num_nodes or job.nodes, job.slots, job.memory_bytes)


def start_in_order(view: View) -> Iterator[Action]:
    """Start the head of the queue while it fits: nobody overtakes it."""
    while (job := view.queue.head()) is not None and (nodes := place(view, job)) is not None:
        yield Start(job, nodes)
