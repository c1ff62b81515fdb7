"""What can be broken on purpose in a run: each kind with the sentence that says what will happen. The ranks do it (`ranks/chaos.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import SpecError, near
from .spec import Fields, knob
from .texts import N_


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        name, label: In a request, and for people.
        help: What will happen, in one sentence; a key of the catalog of texts.
        uses: The arguments of `Fault` beside kind and node that it looks at.
    """

    name: str
    label: str
    help: str
    uses: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "kill",
            N_("Kill a node"),
            N_(
                "The process gets SIGKILL. Where all nodes hold the same state, the others go on, and a spare "
                "one takes its place; else the run ends and is resumed from its last checkpoint."
            ),
        ),
        Kind(
            "stop",
            N_("Stop a node"),
            N_(
                "The process is held (SIGSTOP) and goes on after the time given (SIGCONT). The others wait "
                "for it; the watchdog names it within 10 s."
            ),
            ("seconds",),
        ),
        Kind(
            "slow",
            N_("Slow a node"),
            N_(
                "The node sleeps for this share of each of its ticks. The others wait for it in every one: a straggler."
            ),
            ("seconds", "share"),
        ),
        Kind(
            "link",
            N_("Slow a link"),
            N_(
                "Every message that the node sends is late by the latency given. The ring of all nodes is as "
                "slow as its slowest link."
            ),
            ("seconds", "latency_s"),
        ),
        Kind(
            "cut",
            N_("Cut a link"),
            N_(
                "Messages that the node sends wait until the time given is over. Nothing is lost: everybody "
                "stands still, then goes on."
            ),
            ("seconds",),
        ),
        Kind(
            "disk",
            N_("Fill the disk"),
            N_(
                "A file takes the space beside the run, for the time given. Of a disk that the system lives "
                "on, 1 GiB stays free; a disk of its own is filled up, and the run ends with that reason."
            ),
            ("seconds", "size_bytes"),
        ),
        Kind(
            "nan",
            N_("Poison with NaN"),
            N_(
                "The parameters of the node become NaN. The next exchange takes them to every node, and the "
                "run ends at that step, before a checkpoint could keep them."
            ),
        ),
        Kind(
            "launcher",
            N_("Kill the launcher"),
            N_("mpiexec gets SIGKILL, and all its nodes end with it. The run is resumed from its last checkpoint."),
        ),
        Kind(
            "supervisor",
            N_("Kill the supervisor"),
            N_(
                "The process that guards the ranks gets SIGKILL. No rank outlives it, and the run is resumed "
                "from its last checkpoint."
            ),
        ),
        Kind(
            "host",
            N_("Kill a host"),
            N_(
                "The launcher's part on the node's host gets SIGKILL, and all nodes of that host end with it. "
                "On one machine that is every node."
            ),
        ),
    )
}


class Fault(Fields):
    """Arguments of the verb `fault`."""

    kind: str = knob("kill", "What breaks.", choices=tuple(KINDS))
    node: int = knob(-1, "Number of the node it happens to; -1 is the last one at work.", ge=-1, le=100_000)
    seconds: float = knob(10.0, "How long it lasts.", label="Duration", unit="s", ge=0.1, le=600.0)
    share: float = knob(0.5, "Share of each tick that a slowed node sleeps.", ge=0.05, le=0.95)
    latency_s: float = knob(0.005, "By how much each message of a slowed link is late.", unit="s", ge=0.0, le=10.0)
    size_bytes: int = knob(2**30, "Space to take, at most.", label="Size", unit="B", ge=1, le=2**44)


class When(Fields):
    """When a fault happens, as a field so that "5s" and "2 min" are read as everywhere."""

    when: float = knob(0.0, "Seconds after the run's first tick.", unit="s", ge=0.0, le=1e6)


@dataclass(frozen=True, slots=True)
class Timed:
    """A fault written down beforehand, and how many seconds after the run's beginning it happens."""

    fault: Fault
    after_s: float


def parse(texts: Sequence[str]) -> list[Timed]:
    """Read what a person typed after `--chaos`: `kill=5s`, `stop:2=20s`, `slow:1=5s,share=0.8,seconds=30`.

    Args:
        texts: Each KIND[:NODE]=WHEN[,argument=value ...]; WHEN counts from the run's first tick.

    Raises:
        SpecError: What is wrong with which of them.
    """
    found = []
    for text in texts:
        first, *more = [word.strip() for word in text.split(",")]
        what, sign, at = first.partition("=")
        kind, colon, node = what.partition(":")
        if kind not in KINDS:
            raise SpecError(f"--chaos {text!r}: got {kind!r}; {near(kind, KINDS)}")
        if not sign or not at:
            raise SpecError(f"--chaos {text!r}: it must say when, for example {what}=5s")
        values: dict[str, str] = {"kind": kind, **({"node": node} if colon else {})}
        for word in more:
            key, sign, value = word.partition("=")
            if not sign or key in values:
                raise SpecError(f"--chaos {text!r}: got {word!r}; write argument=value, each once")
            values[key] = value
        try:
            found.append(Timed(Fault.make(values), When.make({"when": at}).when))
        except SpecError as error:
            raise SpecError(f"--chaos {text!r}: {error}") from error
    return found
