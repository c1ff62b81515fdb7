"""Every model against every published row: what was expressed, how far off it is, and what two simple rules would have said.

The error of a performance row is on time, whatever was published: predicted time / published time - 1. All other rows
compare the value itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..machine import catalog
from ..models.transformer import PARAMETERS, Parameters
from . import comm_rows, memory_rows, power_rows, scaling_rows
from .baselines import Baseline, baselines
from .fit import Held, fit, leave_one_source_out, source_family
from .inference_rows import METRIC as SERVING_METRIC
from .inference_rows import predict_inference_row
from .metrics import metric_value
from .rows import Row
from .training_rows import METRICS as TRAINING_METRICS
from .training_rows import Batch, Job, expressed

#: Pools of metrics whose errors can be averaged together. "derived" is arithmetic on other numbers: no evidence of its own.
POOLS = ("iteration_time", "time_to_train_ratio", "serving_time", "memory", "communication", "power_energy", "derived")
#: Rows whose published value is a rate: their time is its inverse.
RATES = ("images_per_s_total", SERVING_METRIC)
POWER_KINDS = ("energy", "carbon", "cost")
CATALOG_METRICS = ("matmul_tflops_max_achievable",)
RATIO_METRICS = ("time_to_train_min", "scaling_efficiency_pct")
DERIVED = "derived"
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """One row: what was published, what is predicted in the same unit, and how far off (None: not expressed, and why)."""

    row: Row
    pool: str
    predicted: float | None
    error: float | None
    reason: str

    def record(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "id": self.row["id"],
            "metric": self.row["metric"],
            "published": self.row.value,
            "predicted": self.predicted,
            "reason": self.reason,
            "error": self.error,
            "pool": self.pool,
            "where": self.row.where,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one source, table, kind and metric."""

    source: str
    table: str
    kind: str
    metric: str
    pool: str
    rows: int
    expressed: int
    mape: float | None
    median: float | None
    bias: float | None
    worst: str
    worst_error: float | None
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Validation:
    """All of it.

    Attributes:
        parameters: The one set that predicted every row.
        results: Per row, in the file's order.
        groups: Per source, table, kind and metric.
        baselines: Simple rules on the same rows of training steps.
        held: What leaving each source out of the fit gives; empty where it was not asked for.
        held_power: The same for power and energy, each job left out; empty where it was not asked for.
        fitted_on: Ids of the rows on which the parameters were fitted.
    """

    parameters: Parameters
    results: Sequence[Result]
    groups: Sequence[Group]
    baselines: Sequence[Baseline]
    held: Sequence[Held] = field(default_factory=tuple)
    held_power: Mapping[str, np.ndarray] = field(default_factory=dict)
    fitted_on: Sequence[str] = field(default_factory=tuple)

    def pooled(self) -> dict[str, dict[str, float | int]]:
        """Return rows and mean absolute percentage error of each pool that has any."""
        found: dict[str, dict[str, float | int]] = {}
        for pool in POOLS:
            errors = [r.error for r in self.results if r.pool == pool and r.error is not None]
            if errors:
                found[pool] = {"rows": len(errors), "mape": 100 * float(np.mean(np.abs(errors)))}
        return found

    def steps(self) -> dict[str, float | int] | None:
        """Return rows and mean error of transformers' training steps and layers: those that fits and simple rules see."""
        errors = [r.error for r in self.results if r.error is not None and r.row["metric"] in TRAINING_METRICS]
        return {"rows": len(errors), "mape": 100 * float(np.mean(np.abs(errors)))} if errors else None

    def cross_validated(self) -> dict[str, dict[str, float | int]]:
        """Return, by pool, rows and mean error when each source (for power: each job) is predicted by a fit without it."""
        left = {"iteration_time": [h.errors for h in self.held], "power_energy": list(self.held_power.values())}
        return {
            pool: {"rows": sum(map(len, errors)), "mape": 100 * float(np.abs(np.concatenate(errors)).mean())}
            for pool, errors in left.items()
            if errors
        }

    def record(self) -> dict[str, Any]:
        """Return it as `--json` prints it; errors are percent in pools and groups, fractions in rows."""
        return {
            "parameters": asdict(self.parameters),
            "fitted_on": list(self.fitted_on),
            "pooled": self.pooled(),
            "cross_validated": self.cross_validated(),
            "left_out": [
                {"source": source, "rows": len(errors), "mape": 100 * float(np.abs(errors).mean())}
                for source, errors in (*((h.source, h.errors) for h in self.held), *self.held_power.items())
            ],
            "baselines": [asdict(b) for b in self.baselines],
            "groups": [asdict(g) for g in self.groups],
            "rows": [r.record() for r in self.results],
        }


def fit_parameters(rows: Iterable[Row]) -> Parameters:
    """Return the parameters that fit the training steps of these rows best.

    Raises:
        DataError: None of the rows can be expressed.
    """
    jobs, reasons = expressed(rows)
    if not jobs:
        first = next(iter(reasons.values()), "there are no rows of training steps")
        raise DataError(f"no row to fit on; {first}")
    return fit(jobs)


def fitted_ids(rows: Iterable[Row]) -> list[str]:
    """Return the ids of the rows of a file on which `PARAMETERS` were fitted, given that it is the shipped file."""
    return [job.row["id"] for job in expressed(rows)[0]]


def validate(
    rows: Sequence[Row],
    parameters: Parameters = PARAMETERS,
    *,
    cross: bool = True,
    fitted_on: Iterable[str] = (),
    extra: Iterable[Path | str] = (),
) -> Validation:
    """Run every model on published rows.

    Args:
        rows: As `rows.read` returns them.
        parameters: The one set.
        cross: Also fit without each source in turn, and predict it.
        fitted_on: Ids of rows on which `parameters` were fitted, for the record.
        extra: Further folders of catalogs.

    Raises:
        CatalogError: A row of a catalog is wrong; it would otherwise be the reason of every row that needs it.
    """
    extra = tuple(extra)
    for name in catalog.NAMES:
        catalog.load(name, extra)
    jobs, reasons = expressed(rows, extra)
    times = dict(zip((j.row["id"] for j in jobs), Batch(jobs).predict(parameters), strict=True)) if jobs else {}
    by_id = {j.row["id"]: j for j in jobs}
    results, every = [], [r.cells for r in rows]
    for row in rows:
        if row["metric"] in TRAINING_METRICS and row["kind"] in ("perf", "scaling"):
            results.append(_training(row, by_id.get(row["id"]), times, reasons))
        else:
            results.append(_other(row, every))
    sources = {source_family(j.row["source"]) for j in jobs}
    held = leave_one_source_out(jobs) if cross and len(sources) > 1 else []
    held_power = power_rows.leave_one_job_out(every) if cross else {}
    known = set(fitted_on)
    used = [r["id"] for r in rows if r["id"] in known]
    return Validation(parameters, results, _groups(results), baselines(jobs), held, held_power, used)


def _training(row: Row, job: Job | None, times: Mapping[str, float], reasons: Mapping[str, str]) -> Result:
    if job is None:
        return Result(row, "iteration_time", None, None, reasons[row["id"]])
    time_s = float(times[row["id"]])
    predicted = metric_value(row["metric"], time_s, job.published)
    return Result(row, "iteration_time", predicted, time_s / job.time_s - 1, "")


def _other(row: Row, every: Sequence[Mapping[str, str]]) -> Result:
    pool, predict = _model_of(row, every)
    if predict is None:
        return Result(row, pool, None, None, f"{row.where}: no model for {row['kind']} {row['metric']!r}")
    predicted, reason = predict()
    if predicted is None or not np.isfinite(predicted) or row.value == 0:
        reason = (
            reason if predicted is None else ""
        ) or f"{row['value']} {row['unit']} cannot be compared with a prediction"
        where = "" if reason.startswith(f"{row.where}: ") else f"{row.where}: "
        return Result(row, pool, None, None, where + reason)
    if reason.startswith(DERIVED):
        pool = "derived"
    ratio = row.value / predicted if row["metric"] in RATES else predicted / row.value
    return Result(row, pool, predicted, ratio - 1, reason)


def _model_of(
    row: Row, every: Sequence[Mapping[str, str]]
) -> tuple[str, Callable[[], tuple[float | None, str]] | None]:
    """Return the pool of a row, and what predicts it."""
    metric, cells = row["metric"], row.cells
    if metric in CATALOG_METRICS:
        reason = f"{row.where}: this row is an input of the catalog, so that predicting it would prove nothing"
        return "iteration_time", lambda: (None, reason)
    if metric == SERVING_METRIC:
        return "serving_time", lambda: predict_inference_row(cells)
    if metric in memory_rows.METRICS:
        return "memory", lambda: memory_rows.predict_memory_row(row)
    if metric in comm_rows.METRICS:
        return "communication", lambda: comm_rows.predict_comm_row(row)
    if row["kind"] in POWER_KINDS:
        return "power_energy", lambda: power_rows.predict_power_row(cells)
    if metric in RATIO_METRICS or metric == "images_per_s_total":
        pool = "iteration_time" if metric == "images_per_s_total" else "time_to_train_ratio"
        return pool, lambda: scaling_rows.predict_scaling_row(cells, every)
    return "iteration_time", None


def _groups(results: Sequence[Result]) -> list[Group]:
    found: dict[Key, list[Result]] = defaultdict(list)
    for r in results:
        found[(source_family(r.row["source"]), _table(r.row), r.row["kind"], r.row["metric"], r.pool)].append(r)
    return [_group(key, rows) for key, rows in found.items()]


def _table(row: Row) -> str:
    """The table of the source, and what sets its rows apart: two kinds of plan in one table are two groups."""
    place = row["source_location"]
    table = place.split(";")[0].split("(")[0].strip() if place.startswith("Table") else ""
    if table and row.number("zero_stage") == 3:
        table += ", ZeRO-3"
    return table or (row["accelerator"] if "foundry" in row["source"] else "")


def _group(key: Key, found: Sequence[Result]) -> Group:
    done = [(r.error, r) for r in found if r.error is not None]
    reasons: dict[str, int] = defaultdict(int)
    for r in found:
        if r.error is None:
            reasons[r.reason.split(": ", 1)[-1]] += 1
    if not done:
        return Group(*key, len(found), 0, None, None, None, "", None, dict(reasons))
    errors = 100 * np.array([e for e, _ in done])
    worst = int(np.argmax(np.abs(errors)))
    return Group(
        *key, len(found), len(done), float(np.abs(errors).mean()), float(np.median(np.abs(errors))),
        float(errors.mean()), done[worst][1].row["id"], float(errors[worst]), dict(reasons),
    )  # fmt: skip
