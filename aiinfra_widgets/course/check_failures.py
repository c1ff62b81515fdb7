"""Exercises of lab 11: how often to save, and what failures cost. All on the learner's own run and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..models.reliability import optimal_interval_s, young_interval_s
from ..texts import N_, tr
from .evidence import Evidence, measured, predicted, spread
from .exercises import NOISE, exercise, fits, medians, near, own_numbers
from .mark import Answer, Mark

GOODPUT = "training_goodput_frac"
#: What is not useful work, by the word that the learner uses.
PARTS = {
    "checkpoints": "checkpoint_frac",
    "lost work": "lost_frac",
    "starting again": "restart_frac",
    "unnoticed": "detection_frac",
}
#: A part that is at least this share of the largest one is as good an answer.
AS_GOOD = 0.8
#: How near to the end of an interval a prediction lies so that noise alone decides on which side.
EDGE = 0.01


def _swept(found: Evidence) -> list[dict[str, Any]]:
    """Return the intervals that were measured one after the other, the shortest first."""
    rows = [r for r in found.more("intervals") or [] if r.get("quantities") and (r.get("spec") or {}).get("interval_s")]
    return sorted(rows, key=lambda r: float(r["spec"]["interval_s"]))


def _restarted(found: Evidence) -> list[dict[str, Any]]:
    """Return every row, of the run and of the intervals, in which failures undid work."""
    return [r for r in (*found.segments(), *_swept(found)) if (r.get("spec") or {}).get("recovery") == "restart"]


def _job_mtbf_s(row: Mapping[str, Any]) -> float:
    return float(row["spec"]["mtbf_s"]) / float(row["spec"]["nodes"])


@exercise(
    "best-interval",
    5,
    ("checkpoint_ms", "job_fails_once_in_s", "young_s", "exact_s", "twice_the_nodes", "four_times_cheaper", "because"),
    N_(
        "Tolerates 10 % or the quartiles in what a checkpoint took; what is computed must follow from your own two numbers within 3 %."
    ),
)
def best_interval(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade the best interval that the learner's own checkpoint and failures imply, and why it goes with a root."""
    swept = [*found.segments(), *_swept(found)]
    rows = [r for r in swept if measured(r, "checkpoint_cost_s") and (r.get("spec") or {}).get("mtbf_s")]
    if not rows:
        mark.miss(5, tr("Your record holds no checkpoint yet. Let the run go on, or save more often."))
        return
    cost_ms, between_s = answer.number("checkpoint_ms"), answer.number("job_fails_once_in_s")
    own = [r for r in rows if fits(cost_ms, [r], "checkpoint_cost_s", 1e3)]
    own_numbers(mark, 1, bool(own), f"{cost_ms}", medians(rows, "checkpoint_cost_s", 1e3), "ms")
    set_s = sorted({_job_mtbf_s(r) for r in own or rows})
    job = any(near(between_s, s) for s in set_s)
    mark.give(
        1, job, tr("That is how often the job fails."),
        tr("Any failing node stops the job: what you set for one node, divided by the nodes, is {own} s; you wrote {said} s.",
           own=", ".join(f"{s:.3g}" for s in set_s), said=between_s),
    )  # fmt: skip
    if not own or not job or cost_ms is None or between_s is None:
        mark.miss(1, tr("The interval is computed from your own two numbers, so these must be right first."))
    else:
        young_s, exact_s = (float(rule(cost_ms / 1e3, between_s)) for rule in (young_interval_s, optimal_interval_s))
        mark.give(
            0.5, near(answer.number("young_s"), young_s), tr("Young's interval follows from your numbers."),
            tr("The root of 2 C M with your C and M is {young:.3g} s. Mind the milliseconds.", young=young_s),
        )  # fmt: skip
        mark.give(
            0.5, near(answer.number("exact_s"), exact_s), tr("So does the exact one."),
            tr("r.optimal_interval_s(C, M) with your C and M, both in seconds, is {exact:.3g} s.", exact=exact_s),
        )  # fmt: skip
    _root(answer, mark)


def _root(answer: Answer, mark: Mark) -> None:
    for name, factor in (("twice_the_nodes", 0.5**0.5), ("four_times_cheaper", 0.5)):
        mark.give(
            0.5, near(answer.number(name), factor), tr("{factor:.2g} times as long.", factor=factor),
            tr("Young's interval goes with the root of what is under it: {factor:.2g} times as long.", factor=factor),
        )  # fmt: skip
    mark.give(
        1, answer.choice("because") == "a", tr("Yes: one cost falls with the interval, the other grows with it."),
        tr("Per second of work, checkpoints cost C/w and lost work w/(2M). What does each do when w is halved? Where are they equal?"),
    )  # fmt: skip


@exercise(
    "intervals-measured",
    4,
    ("best_s", "measured_pct", "predicted_pct", "inside", "shortest_pays_for", "longest_pays_for"),
    N_(
        "Every interval that your data cannot tell from the best is right. Tolerates 10 % or the interval of what was measured, "
        "2 percentage points of what was predicted; of parts that cost about as much, each is right."
    ),
)
def intervals_measured(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade which of the learner's intervals is best, whether the prediction holds there, and what the two ends pay for."""
    rows = [r for r in _swept(found) if measured(r, GOODPUT) is not None and predicted(r, GOODPUT) is not None]
    if len(rows) < 2:
        mark.miss(4, tr('Press "Measure these" first: at least two intervals are needed.'))
        return
    best_s = answer.number("best_s")
    _among_best(found, best_s, mark)
    at = next((r for r in rows if near(best_s, float(r["spec"]["interval_s"]))), None)
    typed = [answer.number(name) for name in ("measured_pct", "predicted_pct")]
    if at is None:
        told = {"seen": ", ".join(f"{r['spec']['interval_s']:g}" for r in rows)}
        mark.miss(2, tr("best_s is none of the intervals that you measured, in seconds: {seen}.", **told))
    else:
        value, expected = measured(at, GOODPUT) or 0.0, predicted(at, GOODPUT) or 0.0
        good = fits(typed[0], [at], GOODPUT, 100) and abs((typed[1] or 1e9) / 100 - expected) <= 0.02
        own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", f"{100 * value:.1f} / {100 * expected:.1f}", "%")
        _inside(answer.choice("inside"), at, expected, mark)
    for name, row in (("shortest_pays_for", rows[0]), ("longest_pays_for", rows[-1])):
        parts = {word: measured(row, q) or 0.0 for word, q in PARTS.items()}
        right = {word for word, part in parts.items() if part >= AS_GOOD * max(parts.values())}
        told = {"at": f"{row['spec']['interval_s']:g}", "parts": _shares(parts)}
        mark.give(
            0.5, answer.choice(name) in right, tr("Yes. At {at} s: {parts}.", **told),
            tr('You say "{said}". Where your time went at {at} s: {parts}.', said=answer.choice(name), **told),
        )  # fmt: skip


def _among_best(found: Evidence, best_s: float | None, mark: Mark) -> None:
    known = found.more("optimum") or {}
    if known.get("optimum_among_best") is None:
        mark.miss(1, tr("Too few failures to tell one interval from another: let them run longer."))
        return
    alike = [float(p["interval_s"]) for p in known["points"] if p["among_best"]]
    told = {"alike": ", ".join(f"{a:g}" for a in alike)}
    mark.give(
        1, any(near(best_s, a) for a in alike), tr("Your data cannot tell these from the best: {alike} s.", **told),
        tr("Compared failure by failure, yours is worse than the best. Your data cannot tell these apart: {alike} s.", **told),
    )  # fmt: skip


def _inside(said: str, row: Mapping[str, Any], expected: float, mark: Mark) -> None:
    ends = spread(row, GOODPUT)
    if ends is None:
        mark.miss(1, tr("Too few failures for an interval of what was measured: let them run longer."))
        return
    right = {"yes" if ends[0] <= expected <= ends[1] else "no"}
    if min(abs(expected - end) for end in ends) <= EDGE:
        right = {"yes", "no"}
    told = {"expected": expected, "low": ends[0], "high": ends[1]}
    mark.give(
        1, said in right, tr("{expected:.0%} was predicted; what was measured lies between {low:.0%} and {high:.0%}.", **told),
        tr('You say "{said}". {expected:.1%} was predicted; what was measured lies between {low:.1%} and {high:.1%}.', said=said, **told),
    )  # fmt: skip


def _shares(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{word} {share:.0%}" for word, share in sorted(parts.items(), key=lambda p: -p[1]))


@exercise(
    "lost-work",
    3,
    ("interval_s", "lost_pct", "between_failures_s", "lost_per_failure_s", "never_saved"),
    N_(
        "Tolerates 10 % in what you read, or half a percentage point; the product must follow from your own two numbers within 3 %."
    ),
)
def lost_work(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade how much work a failure undid in the learner's own row, and what bounds it."""
    rows = [r for r in _restarted(found) if measured(r, "job_mtbf_s") and measured(r, "lost_frac") is not None]
    if not rows:
        mark.miss(3, tr("No failure undid anything in your record yet: let a run with recovery restart go on."))
        return
    asked_s, lost, between_s = (answer.number(n) for n in ("interval_s", "lost_pct", "between_failures_s"))
    mine = [r for r in rows if near(asked_s, float(r["spec"]["interval_s"]))]
    good = any(_is_share(lost, r) and fits(between_s, [r], "job_mtbf_s") for r in mine)
    recorded = "; ".join(
        f"{r['spec']['interval_s']:g} s: {medians([r], 'lost_frac', 100)} % / {medians([r], 'job_mtbf_s')}"
        for r in mine or rows
    )
    own_numbers(mark, 1, good, f"{asked_s} s: {lost} % / {between_s}", recorded, "s")
    should = (lost or 0.0) / 100 * (between_s or 0.0)
    mark.give(
        1, good and near(answer.number("lost_per_failure_s"), should), tr("So much work a failure undid, on the average."),
        tr("One failure in every {between} s, and {lost} % of the time lost: that is {should:.3g} s for each.",
           between=between_s, lost=lost, should=should),
    )  # fmt: skip
    mark.give(
        1, answer.choice("never_saved") == "b", tr("Yes: a failure undoes what was done since the last one, at most."),
        tr("Without checkpoints each failure throws the job back to its beginning. How long has it worked since the failure before?"),
    )  # fmt: skip


def _is_share(percent: float | None, row: Mapping[str, Any]) -> bool:
    """Whether a percentage was read from this row; small shares are shown rounded."""
    own = measured(row, "lost_frac")
    return (
        percent is not None
        and own is not None
        and (near(percent / 100, own, NOISE) or abs(percent / 100 - own) <= 0.005)
    )


@exercise(
    "price-of-failures",
    4,
    ("restart_goodput_pct", "in_place_goodput_pct", "extra_pct", "price_ratio", "energy_ratio", "vanishes", "because"),
    N_(
        "Tolerates 10 % or the interval in each goodput, 10 % in the two ratios; the extra price must follow from your goodput within 3 %."
    ),
)
def price_of_failures(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade what failures add to the price of useful work, with and without survivors, in money and in energy."""
    pairs = _pairs(found.segments())
    if not pairs:
        mark.miss(
            4, tr("Your run has no two rows with useful work that differ in recovery only. Set Recovery to in-place while it runs.")
        )  # fmt: skip
        return
    typed = [answer.number(n) for n in ("restart_goodput_pct", "in_place_goodput_pct")]
    mine = [p for p in pairs if all(fits(t, [row], GOODPUT, 100) for t, row in zip(typed, p, strict=True))]
    again, on = (mine or pairs)[-1]
    recorded = " / ".join(medians([row], GOODPUT, 100) for row in (again, on))
    own_numbers(mark, 1, bool(mine), f"{typed[0]} / {typed[1]}", recorded, "%")
    should = 100 * (100 / typed[0] - 1) if mine and typed[0] else 0.0
    mark.give(
        1, bool(mine) and near(answer.number("extra_pct"), should), tr("So much dearer is an hour of useful work."),
        tr("All hours are paid, {goodput} % of them are useful: 100/{goodput} - 1 is {should:.3g} %.", goodput=typed[0], should=should),
    )  # fmt: skip
    for name, quantity in (("price_ratio", "cost_per_useful_hour_usd"), ("energy_ratio", "energy_per_useful_hour_j")):
        ratio = (measured(again, quantity) or 0.0) / (measured(on, quantity) or 1.0)
        mark.give(
            0.5, ratio > 0 and near(answer.number(name), ratio, NOISE), tr("{ratio:.2f}: that is what your own rows hold.", ratio=ratio),
            tr("{name}: restart divided by in-place, of a useful hour, is {ratio:.2f} in your rows.", name=name, ratio=ratio),
        )  # fmt: skip
    told = {
        "parts": _shares({word: (measured(again, q) or 0.0) - (measured(on, q) or 0.0) for word, q in PARTS.items()})
    }
    mark.give(
        0.5, answer.choice("vanishes") == "lost work", tr("Yes: survivors hold the state, so nothing is undone."),
        tr("By how much each part of your time fell: {parts}. Only one of them is gone for good, whatever the survivors need.", **told),
    )  # fmt: skip
    mark.give(
        0.5, answer.choice("because") == "c", tr("Yes: money counts hours, energy what processors did in them."),
        tr("What do you pay for a node that waits? And what does its processor draw meanwhile?"),
    )  # fmt: skip


def _pairs(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return rows that differ in nothing but the way of recovery, restart first; both with useful work."""
    useful = [r for r in rows if measured(r, GOODPUT) and measured(r, "cost_per_useful_hour_usd")]
    ways = [[r for r in useful if (r.get("spec") or {}).get("recovery") == way] for way in ("restart", "in-place")]
    return [(a, b) for a in ways[0] for b in ways[1] if {**a["spec"], "recovery": ""} == {**b["spec"], "recovery": ""}]
