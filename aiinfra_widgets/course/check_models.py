"""Exercises on what is modelled or claimed, not run: labs 4 and 5."""

from __future__ import annotations

from ..texts import N_, tr
from .evidence import Evidence
from .exercises import READ, exercise, near
from .mark import Answer, Mark

#: Verdicts that decide a claim, and whether it holds then; one that holds in part, or was not clear, decides nothing.
DECIDED = {"holds here": True, "close": True, "refuted": False}


def _counts(found: Evidence) -> dict[int, dict[str, float]]:
    """Return the modelled quantities by number of accelerators, where the plan is possible."""
    rows = {}
    for row in found.results().get("counts") or []:
        values = {k: v.get("value") for k, v in row["quantities"].items()}
        if values.get("step_time_s"):
            rows[int(row["accelerators"])] = values
    return rows


@exercise(
    "what-takes-over",
    4,
    ("few", "many", "few_bubble_pct", "many_bubble_pct", "cost_ratio", "takes_over"),
    N_("A model has no noise; rounding is tolerated (2 percentage points, 5 % in the ratio)."),
)
def what_takes_over(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade where strong scaling ends: the part of the step that does not shrink, and what that costs."""
    rows = _counts(found)
    few, many = (int(answer.number(n) or 0) for n in ("few", "many"))
    if few not in rows or many not in rows or few >= many:
        told = {"seen": ", ".join(map(str, sorted(rows))) or tr("none")}
        mark.miss(
            4,
            tr(
                "Give two counts of accelerators for which your plan is possible, the smaller one first: {seen}.",
                **told,
            ),
        )
        return
    for name, count in (("few_bubble_pct", few), ("many_bubble_pct", many)):
        should = rows[count]["bubble_time_s"] / rows[count]["step_time_s"]
        mark.give(
            0.5, abs((answer.number(name) or 1e9) / 100 - should) <= 0.02,
            tr("On {count} the bubble is {should:.0%} of a step.", count=count, should=should),
            tr("On {count} the bubble is {should:.1%} of a step: its time divided by the step time.", count=count, should=should),
        )  # fmt: skip
    ratio = rows[many]["cost_usd"] / rows[few]["cost_usd"]
    mark.give(
        1, near(answer.number("cost_ratio"), ratio, 0.05), tr("The same training costs {ratio:.2f} times as much.", ratio=ratio),
        tr("Cost on {many} divided by cost on {few} is {ratio:.2f}.", many=many, few=few, ratio=ratio),
    )  # fmt: skip
    shares = {n: rows[many][q] / rows[many]["step_time_s"] - rows[few][q] / rows[few]["step_time_s"]
              for n, q in (("compute", "compute_time_s"), ("bubble", "bubble_time_s"))}  # fmt: skip
    shares["communication"] = rows[many]["exposed_comm_frac"] - rows[few]["exposed_comm_frac"]
    largest = max(shares, key=lambda n: shares[n])
    told = {"parts": ", ".join(f"{n} {v:+.0%}" for n, v in shares.items())}
    mark.give(
        2, answer.choice("takes_over") == largest, tr("Yes. How the shares of a step changed: {parts}.", **told),
        tr("Compare shares of a step, not seconds. They changed by: {parts}.", **told),
    )  # fmt: skip


@exercise(
    "units-alone",
    4,
    ("fall_by_units", "transfer_s", "off_by", "own_verdicts_right"),
    N_("Units and arithmetic have no noise. Claims that your machine left unclear are not counted against you."),
)
def units_alone(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade which claims fall by their units, the arithmetic of bits and bytes, and the learner's own verdicts in the ledger."""
    claims = found.results().get("claims") or []
    wrong = {c["id"].lower() for c in claims if not (c.get("dimension") or {}).get("right", True)}
    given = answer.given.get("fall_by_units")
    said = {
        str(x).strip().lower()
        for x in (given if isinstance(given, list | tuple | set) else answer.words("fall_by_units").split(","))
    }
    mark.give(
        1, bool(wrong) and said == wrong, tr("These have results whose unit cannot be right."),
        tr("You named {said}. Look at the column Dimension: what is called a time must come out as a time.", said=", ".join(sorted(said))),
    )  # fmt: skip
    mark.give(
        1, near(answer.number("transfer_s"), 80.0, READ), tr("80 s: ten gigabytes are eighty gigabits."),
        tr("Ten gigabytes, eight bits each, over a thousand million bits per second."),
    )  # fmt: skip
    mark.give(1, near(answer.number("off_by"), 10.0, READ), tr("The printed 8 s are ten times too few."),
              tr("Divide your time by the printed one, 8 s."))  # fmt: skip
    decided = {c["id"]: DECIDED[c["verdict"]] for c in claims if c.get("verdict") in DECIDED}
    first: dict[str, float] = {}
    for entry in (
        found.ledger()
    ):  # the first verdict on a claim counts; later ones were given by somebody who had seen it judged
        first.setdefault(str(entry.get("question")), entry.get("value") or 0.0)
    judged = {name: bool(value) for name, value in first.items() if name in decided}
    right = sum(holds == decided[name] for name, holds in judged.items())
    if not judged:
        mark.miss(1, tr("Your ledger holds no verdict of yours on a claim that was decided. Commit, then measure."))
        return
    mark.give(
        1, answer.number("own_verdicts_right") == right, tr("{right} of {n} of your verdicts were right.", right=right, n=len(judged)),
        tr("Your ledger holds {n} verdicts on claims that were decided; {right} of them were right.", right=right, n=len(judged)),
    )  # fmt: skip
