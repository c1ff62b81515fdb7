"""Exercises on training over several nodes: labs 1, 6, 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..texts import N_, tr
from .evidence import Evidence, measured
from .exercises import READ, exercise, fits, medians, near, own_numbers, trend
from .mark import Answer, Mark

#: Parts of a step that can be named as what eats a speed-up, by the word that the learner uses.
LOSSES = {
    "communication": "exposed_comm_time_s",
    "waiting": "straggler_wait_time_s",
    "compute": "compute_time_s",
    "data": "data_time_s",
}
#: A part of the loss that is at least this share of the largest one is as good an answer: on a busy machine they change places.
AS_GOOD = 0.6


def _step_pairs(found: Evidence) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return the segments on one node and those on two, for each batch that was measured on both, the largest first."""
    ones, twos = found.where(nodes=1), found.where(nodes=2)
    batches = {s["spec"]["global_batch"] for s in ones} & {s["spec"]["global_batch"] for s in twos}
    return [(_of_batch(ones, b), _of_batch(twos, b)) for b in sorted(batches, reverse=True)]


def _of_batch(segments: Sequence[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    return [s for s in segments if s["spec"]["global_batch"] == batch]


def _speed_ups(found: Evidence) -> list[float]:
    pairs = [(s, t) for ones, twos in _step_pairs(found) for s in ones for t in twos]
    times = [(measured(s, "step_time_s"), measured(t, "step_time_s")) for s, t in pairs]
    return [a / b for a, b in times if a and b]


@exercise(
    "speed-up",
    4,
    ("one_node_ms", "two_nodes_ms", "speed_up", "lost_in"),
    N_(
        "Tolerates 10 %, and whatever lies between the quartiles of your own steps; of parts that lost about as much, each is right."
    ),
)
def speed_up(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade step times on one and two nodes, their ratio, and the part of the step that keeps it from 2."""
    pairs = _step_pairs(found)
    if not pairs:
        mark.miss(
            4,
            tr(
                "Your run has no pair of rows with 1 and with 2 nodes at the same batch. Change only the number of nodes."
            ),
        )
        return
    one, two, ratio = (answer.number(n) for n in ("one_node_ms", "two_nodes_ms", "speed_up"))
    fitting = [p for p in pairs if fits(one, p[0], "step_time_s", 1e3) and fits(two, p[1], "step_time_s", 1e3)]
    good = bool(fitting)
    ones, twos = (fitting or pairs)[0]
    recorded = f"{medians(ones, 'step_time_s', 1e3)} / {medians(twos, 'step_time_s', 1e3)}"
    own_numbers(mark, 1, good, f"{one} / {two}", recorded, "ms")
    should = one / two if one and two else 0.0
    mark.give(
        1, good and near(ratio, should), tr("Your speed-up follows from your numbers."),
        tr("Your ratio {ratio} does not follow from your own numbers: the time on one node divided by the time on two is {should:.2f}.",
           ratio=ratio, should=should),
    )  # fmt: skip
    losses = _losses(ones[-1], twos[-1])
    largest = max(losses.values())
    right = {name for name, lost in losses.items() if lost >= AS_GOOD * largest}
    said = answer.choice("lost_in")
    told = ", ".join(f"{name} {lost * 1e3:+.2f} ms" for name, lost in sorted(losses.items(), key=lambda x: -x[1]))
    mark.give(
        2, said in right, tr("Yes: against half of one node's step, your two nodes lost {told}.", told=told),
        tr('You say that most is lost in "{said}". Against half of one node\'s step, your two nodes lost: {told}.', said=said, told=told),
    )  # fmt: skip


def _losses(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much each part is longer than half of what it was on one node, in seconds."""
    return {w: (measured(two, q) or 0.0) - (measured(one, q) or 0.0) / 2 for w, q in LOSSES.items()}


@exercise(
    "serial-share",
    3,
    ("speed_up", "serial_share_pct", "four_nodes", "at_most"),
    N_("Tolerates 10 % in the speed-up; what follows from it must follow within 3 %, whatever your machine measured."),
)
def serial_share(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade the serial share that the learner's own speed-up implies (Karp and Flatt), and what Amdahl makes of it."""
    speed_ups = _speed_ups(found)
    if not speed_ups:
        mark.miss(
            3,
            tr(
                "Your run has no pair of rows with 1 and with 2 nodes at the same batch. Change only the number of nodes."
            ),
        )
        return
    own = answer.number("speed_up")
    good = own is not None and own > 0 and any(near(own, s, 2 * READ + 0.04) for s in speed_ups)
    if not good or own is None:
        typed, recorded = f"{own}", ", ".join(f"{s:.2f}" for s in speed_ups)
        own_numbers(mark, 1, False, typed, recorded, "x")
        mark.miss(2, tr("The share is computed from your own speed-up, so that must be right first."))
        return
    share = 2 / own - 1
    mark.give(
        1, abs((answer.number("serial_share_pct") or 1e9) / 100 - share) <= READ, tr("The serial share follows from your speed-up."),
        tr("With a speed-up of {own:.2f} the share is 2/{own:.2f} - 1 = {share:.0%}.", own=own, share=share),
    )  # fmt: skip
    four = 1 / (share + (1 - share) / 4) if share + (1 - share) / 4 > 0 else 0.0
    mark.give(
        1, near(answer.number("four_nodes"), four, 2 * READ), tr("So much four nodes would bring, by Amdahl."),
        tr("Amdahl with a share of {share:.0%}: 1/({share:.2f} + {rest:.2f}/4) = {four:.2f}.", share=share, rest=1 - share, four=four),
    )  # fmt: skip
    right = {"a"} if share > READ else {"b"} if share < -READ else {"a", "b"}
    mark.give(
        1, answer.choice("at_most") in right, tr("Yes."),
        tr("Look at the sign of your share: above zero it is a limit that no number of nodes passes; below zero the two nodes were more "
           "than twice as fast, which Amdahl cannot explain (caches, or a neighbour who was busy while one node ran)."),
    )  # fmt: skip


@exercise(
    "batch-trend",
    4,
    ("large_batch", "small_batch", "large_share_pct", "small_share_pct", "trend", "because"),
    N_(
        "Tolerates 8 percentage points in each share. Where your two shares lie nearer than that, what theory says counts as well."
    ),
)
def batch_trend(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade how the share of a step that is not arithmetic changes when the batch shrinks."""
    large, small = answer.number("large_batch"), answer.number("small_batch")
    pair = [[s for s in found.segments() if s["nodes"] >= 2 and s["spec"]["global_batch"] == b] for b in (large, small)]
    if not large or not small or large <= small or not all(pair):
        tried = sorted({s["spec"]["global_batch"] for s in found.segments() if s["nodes"] >= 2})
        told = {"tried": ", ".join(map(str, tried)) or tr("none")}
        mark.miss(
            4, tr("Give a larger and a smaller batch that you ran on two nodes; your record has: {tried}.", **told)
        )
        return
    shares = [[_not_compute(s) for s in group] for group in pair]
    typed = [answer.number(n) for n in ("large_share_pct", "small_share_pct")]
    good = all(
        t is not None and any(abs(t / 100 - s) <= 0.08 for s in own) for t, own in zip(typed, shares, strict=True)
    )
    recorded = " / ".join(", ".join(f"{s:.0%}" for s in own) for own in shares)
    own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", recorded, "%")
    first, last = shares[0][-1], shares[1][-1]
    seen = "grows" if last - first > 0.08 else "shrinks" if first - last > 0.08 else "stays"
    right = {seen}
    if seen == "stays":  # within the noise: what the two numbers say, or what theory does
        right |= {"grows", "shrinks" if last < first else "grows"}
    mark.give(
        1, answer.choice("trend") in right, tr("That is what your own run shows."),
        tr('You say that the share "{said}" when the batch shrinks; in your run it went from {first:.0%} to {last:.0%}.',
           said=answer.choice("trend"), first=first, last=last),
    )  # fmt: skip
    mark.give(
        2, answer.choice("because") == "b", tr("Yes: half of the samples are half of the arithmetic; the gradient stays as long."),
        tr("Look at the bytes sent in your record: do they change with the batch? Then look at the compute."),
    )  # fmt: skip


def _not_compute(segment: Mapping[str, Any]) -> float:
    whole, part = measured(segment, "step_time_s"), measured(segment, "compute_time_s")
    return 1 - (part or 0.0) / whole if whole else 0.0


def _row(rows: Any, **spec: Any) -> dict[str, Any] | None:
    """Return the first of several setups whose Spec has these values."""
    found = [
        r for r in rows or [] if all((r.get("spec") or {}).get(k) == v for k, v in spec.items()) and r.get("quantities")
    ]
    return found[0] if found else None


@exercise(
    "who-sends",
    4,
    ("replicas_bytes", "shared_layers_bytes", "ratio", "double_batch"),
    N_("Bytes are counted, so nothing is tolerated but rounding (10 %)."),
)
def who_sends(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade bytes of replicas against bytes of tensor parallel ranks, and which of them grow with the batch."""
    rows = found.more("plans")
    dp = _row(rows, nodes=2, tp_size=1, cp_size=1)
    tp = _row(rows, nodes=2, tp_size=2, sequence_parallel=False)
    if dp is None or tp is None:
        mark.miss(
            4,
            tr(
                'Press "Measure these" first: the plans with two replicas and with two nodes that share layers are needed.'
            ),
        )
        return
    typed = [answer.number("replicas_bytes"), answer.number("shared_layers_bytes")]
    good = fits(typed[0], [dp], "sent_bytes") and fits(typed[1], [tp], "sent_bytes")
    own_numbers(
        mark, 1, good, f"{typed[0]} / {typed[1]}", f"{medians([dp], 'sent_bytes')} / {medians([tp], 'sent_bytes')}", "B"
    )
    should = (typed[1] or 0.0) / typed[0] if typed[0] else 0.0
    mark.give(
        1, good and near(answer.number("ratio"), should), tr("Your ratio follows from your bytes."),
        tr("Bytes of shared layers divided by bytes of replicas: {should:.3g}.", should=should),
    )  # fmt: skip
    mark.give(
        2, answer.choice("double_batch") == "b", tr("Yes: activations grow with the batch, gradients do not."),
        tr("Replicas send one gradient, as long as the weights. Nodes that share a layer send what flows through it, sample by sample."),
    )  # fmt: skip


@exercise(
    "bubble",
    4,
    ("formula_1_pct", "formula_4_pct", "measured_trend", "why_longer"),
    N_(
        "The formula is exact within 3 %. Of what was measured only the trend counts, and within 10 % any answer about it."
    ),
)
def bubble(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade the bubble's formula, the measured trend, and what limits the number of micro-batches."""
    for name, m in (("formula_1_pct", 1), ("formula_4_pct", 4)):
        stages = next((s["spec"]["pp_size"] for s in found.segments()), 2)
        should = (stages - 1) / (m + stages - 1)
        mark.give(
            0.5, near(answer.number(name), 100 * should, READ),
            tr("{m} micro-batches: {should:.0%}.", m=m, should=should),
            tr("(p-1)/(m+p-1) with p = {p} and m = {m} is {should:.0%}.", p=stages, m=m, should=should),
        )  # fmt: skip
    rows = [
        r
        for r in found.more("microbatches") or []
        if r.get("quantities") and (r.get("spec") or {}).get("schedule") == "1f1b"
    ]
    shares = [(r["spec"]["num_microbatches"], b / w) for r in rows
              if (w := measured(r, "step_time_s")) and (b := measured(r, "bubble_time_s")) is not None]  # fmt: skip
    if len(shares) < 2:
        mark.miss(
            3, tr('Press "Measure these" first: the bubble with at least two numbers of micro-batches is needed.')
        )
        return
    first, last = min(shares)[1], max(shares)[1]
    seen = {1: {"grows"}, -1: {"shrinks"}, 0: {"grows", "shrinks", "stays"}}[trend(first, last)]
    mark.give(
        1, answer.choice("measured_trend") in seen, tr("That is what your own run shows."),
        tr('You say that the measured bubble "{said}"; in your run it went from {first:.0%} to {last:.0%} of a step.',
           said=answer.choice("measured_trend"), first=first, last=last),
    )  # fmt: skip
    mark.give(
        2, answer.choice("why_longer") == "c", tr("Yes: a small piece of work costs more per sample than a large one."),
        tr("The formula counts only idle time. Look at the compute of your rows: does it stay the same when the pieces get smaller?"),
    )  # fmt: skip


@exercise(
    "stages",
    4,
    ("stage_0_mb", "stage_3_mb", "left_1_pct", "left_2_pct", "left_3_pct", "half_more"),
    N_("Bytes are counted in tensors, so nothing is tolerated but rounding (10 %, or 3 percentage points of a share)."),
)
def stages(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade what each stage of ZeRO leaves on a node, from the learner's own bytes, and which stage sends half as much again."""
    held = {z: _held(rows[-1]) for z in range(4) if (rows := found.where(zero_stage=z, nodes=2))}
    if len(held) < 4:
        told = {"seen": ", ".join(map(str, held)) or tr("none")}
        mark.miss(4, tr("Run all four stages on two nodes; your record has: {seen}.", **told))
        return
    typed = [answer.number(f"stage_{z}_mb") for z in (0, 3)]
    good = all(near(t, held[z] / 1e6, 0.1) for t, z in zip(typed, (0, 3), strict=True))
    own_numbers(mark, 1, good, f"{typed[0]} / {typed[1]}", f"{held[0] / 1e6:.3g} / {held[3] / 1e6:.3g}", "MB")
    for z in (1, 2, 3):
        should = held[z] / held[0]
        mark.give(
            0.5, abs((answer.number(f"left_{z}_pct") or 1e9) / 100 - should) <= READ,
            tr("Stage {z} leaves {should:.0%}.", z=z, should=should),
            tr("Stage {z} leaves {should:.0%} of the bytes of stage 0 in your run: weights, gradients and optimiser state together.",
               z=z, should=should),
        )  # fmt: skip
    mark.give(
        1.5, answer.number("half_more") == 3, tr("Yes: gathered for forward, gathered for backward, and the gradients scattered."),
        tr("An all-reduce is a reduce-scatter and an all-gather. Which stage has to gather the weights twice in a step?"),
    )  # fmt: skip


def _held(segment: Mapping[str, Any]) -> float:
    return sum(measured(segment, q) or 0.0 for q in ("parameters_bytes", "gradients_bytes", "optimizer_bytes"))
