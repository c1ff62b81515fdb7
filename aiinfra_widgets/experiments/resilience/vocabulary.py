"""What is predicted and measured of a job that nodes fail under."""

from __future__ import annotations

from ...quantities import Quantity

#: Where the wall time goes, useful work first; they add up to 1.
SHARES = ("training_goodput_frac", "checkpoint_frac", "lost_frac", "restart_frac", "detection_frac")
#: One row for each stretch, which a checkpoint ends, or a failure. `failures` is how many struck before it began.
STRETCHES = ("failures", "useful_s", "checkpoint_s", "lost_s", "restart_s", "detection_s", "begun_s", "ended_s")

QUANTITIES = (
    Quantity(
        "checkpoint_frac",
        "Checkpoints",
        "frac",
        "Share of the wall time for which work stands still while a checkpoint is written.",
        "lower",
        part="data",
        combine="first",
    ),
    Quantity(
        "lost_frac",
        "Lost work",
        "frac",
        "Share of the wall time for work that a failure undid.",
        "lower",
        part="bubble",
        combine="first",
    ),
    Quantity(
        "restart_frac",
        "Starting again",
        "frac",
        "Share of the wall time from noticing a failure until work goes on, failed starts included.",
        "lower",
        part="communication",
        combine="first",
    ),
    Quantity(
        "detection_frac",
        "Unnoticed",
        "frac",
        "Share of the wall time in which a node has failed and nobody knows.",
        "lower",
        part="wait",
        combine="first",
    ),
    Quantity(
        "job_mtbf_s",
        "Time between failures",
        "s",
        "Mean time between failures of the job, which any failing node stops; the time in which a failure goes unnoticed is left out.",
        "higher",
        combine="first",
    ),
    Quantity("failures", "Failures", "failures", "Node failures in the segment so far.", "lower", combine="first"),
    Quantity(
        "steps_kept",
        "Steps done",
        "steps",
        "Training steps that the weights hold; a failure throws it back to the last checkpoint.",
        "higher",
        combine="first",
    ),
    Quantity(
        "checkpoint_cost_s",
        "One checkpoint",
        "s",
        "Mean time for which a checkpoint stops the work.",
        "lower",
        combine="first",
    ),
    Quantity(
        "restart_time_s",
        "One recovery",
        "s",
        "Mean time from noticing a failure until work goes on.",
        "lower",
        combine="first",
    ),
    Quantity(
        "optimal_interval_s",
        "Best interval",
        "s",
        "Work between two checkpoints that makes goodput greatest, as the model has it.",
        "neither",
        combine="first",
    ),
    Quantity(
        "young_interval_s",
        "Young's interval",
        "s",
        "Young's rule of 1974 for the best interval: the root of 2 x cost of a checkpoint x mean time between failures.",
        "neither",
        combine="first",
    ),
    Quantity(
        "busy_processors",
        "Busy processors",
        "processors",
        "Processors that the nodes keep busy, all of them together, on the average.",
        "neither",
        combine="first",
    ),
    Quantity(
        "energy_per_useful_hour_j",
        "Energy per useful hour",
        "J",
        "Energy of one hour of useful work, with everything that failures and checkpoints cost.",
        "lower",
        combine="first",
    ),
    Quantity(
        "cost_per_useful_hour_usd",
        "Cost per useful hour",
        "USD",
        "Price of one hour of useful work, with everything that failures and checkpoints cost.",
        "lower",
        combine="first",
    ),
    Quantity(
        "resilience_cost_usd",
        "Price of failures",
        "USD",
        "The part of that price which a machine that never fails would not cost.",
        "lower",
        combine="first",
    ),
)  # fmt: skip
