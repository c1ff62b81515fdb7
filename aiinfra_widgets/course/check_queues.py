"""Exercises on waiting: labs 2 (requests) and 3 (jobs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..texts import N_, tr
from .evidence import Evidence, measured
from .exercises import NOISE, exercise, fits, medians, near, own_numbers
from .mark import Answer, Mark

#: A response time at high load has a wide confidence interval; so much change of a ratio says nothing yet.
FEW_REQUESTS = 0.25


def _at(found: Evidence, load: float | None, nodes: int) -> list[dict[str, Any]]:
    return [s for s in found.where(nodes=nodes) if load and near(load, s["spec"]["arrival_rate_per_s"], 0.01)]


@exercise(
    "busy-and-slow",
    5,
    (
        "low_load_per_s",
        "high_load_per_s",
        "low_response_ms",
        "high_response_ms",
        "low_busy_pct",
        "high_busy_pct",
        "growth",
        "because",
    ),
    N_(
        "Tolerates 10 % or the confidence interval of your mean, 6 percentage points of utilisation, and a quarter in the growth."
    ),
)
def busy_and_slow(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade how the response grows with the load on the same servers, from the learner's own two loads."""
    loads = [answer.number("low_load_per_s"), answer.number("high_load_per_s")]
    pairs = [[_at(found, load, n) for load in loads] for n in sorted({s["nodes"] for s in found.segments()})]
    pair = next((p for p in pairs if all(p)), None)
    if pair is None or not loads[0] or not loads[1] or loads[0] >= loads[1]:
        tried = ", ".join(f"{s['spec']['arrival_rate_per_s']:g} ({s['nodes']})" for s in found.segments())
        mark.miss(5, tr("Give a lower and a higher load that you ran on as many servers; your record has these loads (servers): {tried}.",
                        tried=tried or tr("none")))  # fmt: skip
        return
    typed = [answer.number("low_response_ms"), answer.number("high_response_ms")]
    good = all(fits(t, group, "mean_response_s", 1e3) for t, group in zip(typed, pair, strict=True))
    told = " / ".join(medians(group, "mean_response_s", 1e3) for group in pair)
    own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", told, "ms")
    for name, group in zip(("low_busy_pct", "high_busy_pct"), pair, strict=True):
        spec = group[-1]["spec"]
        service = measured(group[-1], "mean_service_s") or spec["mean_service_s"]
        should = spec["arrival_rate_per_s"] * service / group[-1]["nodes"]
        seen = [should, *(u for s in group if (u := measured(s, "utilization_frac")) is not None)]
        said = answer.number(name)
        mark.give(
            0.5, said is not None and any(abs(said / 100 - u) <= 0.06 for u in seen), tr("Busy for {u:.0%} of the time.", u=should),
            tr("Load times service time, over the number of servers, is {u:.0%}; you wrote {said} %.", u=should, said=said),
        )  # fmt: skip
    _growth(answer, mark, loads[1] / loads[0], pair)
    mark.give(
        1, answer.choice("because") == "b", tr("Yes: what is left free shrinks to nothing, and the wait goes with its inverse."),
        tr("Is the time of one service longer at the high load? Your record says what it was. So where is the time spent?"),
    )  # fmt: skip


def _growth(answer: Answer, mark: Mark, factor: float, pair: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    own = [measured(group[-1], "mean_response_s") or 0.0 for group in pair]
    ratio = own[1] / own[0] if own[0] else 0.0
    clearly = (
        {"more"} if ratio > factor * (1 + FEW_REQUESTS) else {"less"} if ratio < factor * (1 - FEW_REQUESTS) else set()
    )
    right = clearly or {"more", "less", "as much"}
    mark.give(
        2, answer.choice("growth") in right, tr("{factor:.2f} times the load, {ratio:.2f} times the response.", factor=factor, ratio=ratio),
        tr('You say the response grew "{said}" than the load. Your record: {factor:.2f} times the load, {ratio:.2f} times the response.',
           said=answer.choice("growth"), factor=factor, ratio=ratio),
    )  # fmt: skip


@exercise(
    "littles-law",
    3,
    ("done_per_s", "response_ms", "in_system", "needs"),
    N_(
        "Tolerates 10 % or the confidence interval in what you read; the product must follow from your own two numbers within 3 %."
    ),
)
def littles_law(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade Little's law on one row of the learner's own table."""
    rate, response = answer.number("done_per_s"), answer.number("response_ms")
    rows = [
        s
        for s in found.segments()
        if fits(rate, [s], "completed_per_s") and fits(response, [s], "mean_response_s", 1e3)
    ]
    told = "; ".join(
        f"{medians([s], 'completed_per_s')} /s, {medians([s], 'mean_response_s', 1e3)} ms" for s in found.segments()
    )
    own_numbers(mark, 1, bool(rows), f"{rate} /s, {response}", told, "ms")
    should = (rate or 0.0) * (response or 0.0) / 1e3
    mark.give(
        1, bool(rows) and near(answer.number("in_system"), should), tr("{n:.2f} requests are in the system on average.", n=should),
        tr("Rate times time: {n:.2f} requests are in the system on average. Mind the milliseconds.", n=should),
    )  # fmt: skip
    mark.give(
        1, answer.choice("needs") == "c", tr("Yes: nothing but that it is steady."),
        tr("Little's law asks for no distribution, no order of service and no number of servers. What does it ask for?"),
    )  # fmt: skip


@exercise(
    "tail",
    3,
    ("mean_ms", "p99_ms", "ratio", "promise"),
    N_(
        "Tolerates 10 % in the mean and 25 % in the percentile, which few requests decide; the ratio must follow within 3 %."
    ),
)
def tail(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade mean against 99th percentile of one row, and which of them a promise should be about."""
    mean, p99 = answer.number("mean_ms"), answer.number("p99_ms")
    rows = [s for s in found.segments() if fits(mean, [s], "mean_response_s", 1e3)]
    tails = [1e3 * t for s in rows if (t := measured(s, "p99_response_s"))]
    told = "; ".join(
        f"{medians([s], 'mean_response_s', 1e3)} / {medians([s], 'p99_response_s', 1e3)}" for s in found.segments()
    )
    good = any(near(p99, t, FEW_REQUESTS) for t in tails)
    own_numbers(mark, 1, good, f"{mean} / {p99}", told, "ms")
    should = p99 / mean if mean and p99 else 0.0
    mark.give(
        1, good and near(answer.number("ratio"), should), tr("Your ratio follows from your numbers."),
        tr("The 99th percentile divided by the mean is {should:.2f}.", should=should),
    )  # fmt: skip
    mark.give(
        1, answer.choice("promise") == "a", tr("Yes: somebody who sends a hundred requests meets it once."),
        tr("A page that needs a hundred answers is as slow as the slowest of them. Which number tells how slow that is?"),
    )  # fmt: skip


def _simulated(found: Evidence, name: str) -> dict[Any, dict[str, Any]]:
    return {row["at"]: row for row in found.more(name) or [] if isinstance(row, dict) and "at" in row}


@exercise(
    "convoy",
    4,
    ("fifo_wait_s", "sjf_wait_s", "ratio", "makespan_changes", "because"),
    N_("The simulation is exact, so only rounding is tolerated (10 %)."),
)
def convoy(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade what shortest-job-first does to the mean wait and to the end of the stream, in the simulation of the same jobs."""
    rows = _simulated(found, "policies")
    if "fifo" not in rows or "sjf" not in rows:
        mark.miss(4, tr("The simulated policies are missing; run the cell that simulates them once more."))
        return
    fifo, sjf = rows["fifo"], rows["sjf"]
    typed = [answer.number("fifo_wait_s"), answer.number("sjf_wait_s")]
    good = all(
        t is not None and abs(t - r["mean_wait_s"]) <= NOISE * r["mean_wait_s"] + 5e-3
        for t, r in zip(typed, (fifo, sjf), strict=True)
    )
    own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", f"{fifo['mean_wait_s']:.3f} / {sjf['mean_wait_s']:.3f}", "s")
    should = typed[0] / typed[1] if typed[0] and typed[1] else 0.0
    mark.give(
        1, good and near(answer.number("ratio"), should), tr("Your ratio follows from your numbers."),
        tr("The wait under fifo divided by the wait under sjf is {should:.2f}.", should=should),
    )  # fmt: skip
    change = abs(sjf["makespan_s"] / fifo["makespan_s"] - 1)
    right = {"hardly"} if change < 0.1 else {"much"} if change > 0.2 else {"hardly", "much"}
    mark.give(
        1, answer.choice("makespan_changes") in right, tr("The end of the stream moved by {change:.0%}.", change=change),
        tr("Its end moved by {change:.0%}, from {a:.2f} s to {b:.2f} s.", change=change, a=fifo["makespan_s"], b=sjf["makespan_s"]),
    )  # fmt: skip
    mark.give(
        1, answer.choice("because") == "a", tr("Yes: the work is the same, and it is only handed out in another order."),
        tr("Does a policy change how much work there is, or how fast a node does it? So what is left for it to change?"),
    )  # fmt: skip


@exercise(
    "overload",
    3,
    ("short_wait_s", "long_wait_s", "trend", "because"),
    N_("The simulation is exact, so only rounding is tolerated (10 %)."),
)
def overload(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade what becomes of the wait when a stream that brings more than the nodes can do goes on for longer."""
    rows = sorted(_simulated(found, "lengths").items(), key=lambda item: float(item[0]))
    if len(rows) < 2:
        mark.miss(3, tr("The simulation of a longer stream is missing; run the cell that makes it once more."))
        return
    waits = [rows[0][1]["mean_wait_s"], rows[-1][1]["mean_wait_s"]]
    typed = [answer.number("short_wait_s"), answer.number("long_wait_s")]
    good = all(t is not None and abs(t - w) <= NOISE * w + 5e-3 for t, w in zip(typed, waits, strict=True))
    own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", f"{waits[0]:.3f} / {waits[1]:.3f}", "s")
    seen = "grows" if waits[1] > waits[0] * (1 + NOISE) else "shrinks" if waits[1] < waits[0] * (1 - NOISE) else "stays"
    mark.give(
        1, answer.choice("trend") == seen, tr("That is what the simulation shows."),
        tr('You say that the wait "{said}"; it went from {a:.2f} s to {b:.2f} s.', said=answer.choice("trend"), a=waits[0], b=waits[1]),
    )  # fmt: skip
    mark.give(
        1, answer.choice("because") == "c", tr("Yes: what is too much for the nodes piles up for as long as the stream lasts."),
        tr("Each second brings 1.2 seconds of work per node. Where does the rest go, and does it ever become less while jobs arrive?"),
    )  # fmt: skip


@exercise(
    "simulated-and-real",
    3,
    ("simulated_wait_s", "measured_wait_s", "difference_s", "because"),
    N_("Tolerates 10 % in what you read. How large the difference is depends on your machine, and is not graded."),
)
def simulated_and_real(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade the difference between the simulated and the measured wait, and what the simulation cannot know."""
    rows = [s for s in found.segments() if measured(s, "mean_wait_s") is not None]
    said, own = answer.number("simulated_wait_s"), answer.number("measured_wait_s")
    pairs = [((s["quantities"]["mean_wait_s"] or {}).get("predicted"), measured(s, "mean_wait_s")) for s in rows]
    good = any(p is not None and m is not None and _read(said, p) and _read(own, m) for p, m in pairs)
    told = "; ".join(f"{p:.3f} / {m:.3f}" for p, m in pairs if p is not None and m is not None) or tr("nothing")
    own_numbers(mark, 1, good, f"{said} / {own}", told, "s")
    should = (own or 0.0) - (said or 0.0)
    got = answer.number("difference_s")
    mark.give(
        1, good and got is not None and abs(got - should) <= 0.005 + 0.03 * abs(should), tr("The difference follows from your numbers."),
        tr("Measured minus simulated is {should:+.3f} s; mind the sign.", should=should),
    )  # fmt: skip
    mark.give(
        1, answer.choice("because") == "b", tr("Yes: starting, checkpointing and sharing cores take time that real jobs spend."),
        tr("Both use the same jobs, in the same order, and the same scheduler. What is left that only the real nodes do?"),
    )  # fmt: skip


def _read(value: float | None, truth: float) -> bool:
    return value is not None and abs(value - truth) <= NOISE * abs(truth) + 5e-3
