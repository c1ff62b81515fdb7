"""Exercises of lab 9: what different nets ask of a machine."""

from __future__ import annotations

from ..texts import N_, tr
from .evidence import Evidence, measured
from .exercises import exercise, fits, medians, near, own_numbers
from .mark import Answer, Mark


@exercise(
    "rate",
    4,
    ("step_ms", "work_gflop", "rate_gflop_per_s", "first_guess"),
    N_(
        "Tolerates 10 % and whatever lies between the quartiles of your steps; the rate must follow from your two numbers within 3 %."
    ),
)
def rate(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade work over time of the learner's own step, and why the rate differs between nets."""
    rows = found.segments()
    step, work = answer.number("step_ms"), answer.number("work_gflop")
    good = fits(step, rows, "step_time_s", 1e3)
    own_numbers(mark, 1, good, f"{step}", medians(rows, "step_time_s", 1e3), "ms")
    flops = [f for s in rows if (f := measured(s, "flop_per_step"))]
    told = {"should": ", ".join(f"{f / 1e9:.3g}" for f in flops) or tr("nothing")}
    mark.give(
        1, any(near(work, f / 1e9, 0.1) for f in flops), tr("That is the arithmetic of one step."),
        tr("Flop per sample times the samples of one step of all nodes is {should} Gflop.", **told),
    )  # fmt: skip
    should = (work or 0.0) / (step or 1.0) * 1e3
    mark.give(
        1, good and near(answer.number("rate_gflop_per_s"), should), tr("Your rate follows from your numbers."),
        tr("Work over time is {should:.3g} Gflop/s.", should=should),
    )  # fmt: skip
    mark.give(
        1, answer.choice("first_guess") == "b", tr("Yes: few numbers are used again after they were fetched."),
        tr("The cores are the same. Which nets multiply large matrices, and which look up a row of a table and are done with it?"),
    )  # fmt: skip
