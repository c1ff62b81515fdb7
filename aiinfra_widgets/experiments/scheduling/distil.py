"""From the records of a segment to its figures, by the same arithmetic as the simulation's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...experiment import Observed
from ...machine.profile import Machine
from ...quantities import Value
from .jobs import Job
from .meters import Meters
from .metrics import metrics, tally
from .setup import SHORT_S, tariff_of
from .spec import SchedulingSpec
from .values import to_values
from .vocabulary import STATES

if TYPE_CHECKING:
    import pandas as pd

INTEGRALS = ("slot_s", "busy_slot_s", "partly_free_slot_s", "node_s", "waiting_job_s")


def distil(spec: SchedulingSpec, machine: Machine, observed: Observed) -> dict[str, Value]:
    """Return the figures of the jobs that ended in a segment, and of the nodes while it lasted."""
    rows = observed.records["jobs"].drop_duplicates("job", keep="last")
    meters = _meters(observed.records["meters"])
    if rows.empty or not meters.slot_s:
        return {}
    figures = metrics(tally((_job(row) for row in rows.itertuples()), SHORT_S), meters, tariff_of(spec, machine))
    return to_values(figures, method="measured", how=f"of {len(rows)} jobs that ended in this segment", n=len(rows))


def _meters(rows: pd.DataFrame) -> Meters:
    """Return the integrals over a segment: the last reading less the first."""
    meters = Meters()
    if len(rows) < 2:
        return meters
    rows = rows.sort_values("now_s")
    grown = rows.iloc[-1] - rows.iloc[0]
    for name in INTEGRALS:
        setattr(meters, name, float(grown[name]))
    for name in ("carbon", "price"):
        meters.weighted[name] = (float(grown[f"{name}_busy"]), float(grown[f"{name}_all"]))
    return meters


def _job(row: object) -> Job:
    """Return a job that is over, as the record has it."""
    r: pd.Series = row  # type: ignore[assignment]
    deadline_s = None if r.deadline_s != r.deadline_s else float(r.deadline_s)
    job = Job(
        int(r.job), float(r.submit_s), int(r.nodes), float(r.work_s), user=f"user {int(r.user)}", deadline_s=deadline_s
    )
    job.state, job.end_s = STATES[int(r.state)], float(r.end_s)
    job.start_s = None if r.start_s != r.start_s else float(r.start_s)
    job.held_s, job.held_node_s = float(r.held_s), float(r.held_node_s)
    return job
