"""What is predicted and measured of a schedule."""

from __future__ import annotations

from ...quantities import Quantity
from .jobs import State

QUANTITIES = (
    Quantity("makespan_s", "Makespan", "s", "From the first submission until the last job is done.", "lower"),
    Quantity("mean_turnaround_s", "Mean turnaround", "s", "From submission until a job is done.", "lower"),
    Quantity("mean_run_s", "Running", "s", "Mean time of a job on its nodes.", "lower", part="compute"),
    Quantity(
        "mean_slowdown",
        "Mean slowdown",
        "x",
        "Turnaround over the run time alone, short jobs counted as longer.",
        "lower",
    ),
    Quantity(
        "fairness_frac", "Fairness", "frac", "Jain's index of the users' slowdowns: 100 % is equal for all.", "higher"
    ),
    Quantity("jobs_late", "Late jobs", "jobs", "Jobs that were done after their deadline.", "lower"),
    Quantity("jobs_ended", "Jobs ended", "jobs", "Jobs that ended in whatever way.", "neither"),
    Quantity("jobs_done", "Jobs done", "jobs", "Jobs that ended as they should.", "higher"),
    Quantity("waiting_jobs", "Waiting jobs", "jobs", "Jobs that could start if nodes were free.", "lower"),
    Quantity("running_jobs", "Running jobs", "jobs", "Jobs that hold nodes.", "neither"),
    Quantity("job_loss", "Training loss", "loss", "Mean loss of the jobs that train.", "lower"),
)
#: Columns of the records. Times are seconds of the run, which a pause stops.
INTERVALS = ("job", "node", "start_s", "end_s")
#: In the record a job's state is its place in here.
STATES = tuple(State)
JOBS = (
    "job", "submit_s", "start_s", "end_s", "state", "segments", "held_s", "held_node_s", "nodes", "work_s", "priority", "user",
    "deadline_s", "loss",
)  # fmt: skip
#: The scheduler's integrals over time, once a window; accelerator-seconds also weighted with the hours' carbon and price.
METERS = (
    "now_s", "slot_s", "busy_slot_s", "partly_free_slot_s", "node_s", "waiting_job_s", "carbon_busy", "carbon_all", "price_busy",
    "price_all",
)  # fmt: skip
