"""The published record: training runs that others measured, and which of them are nearest to a plan.

Each row keeps its source and the number as printed. To lie on one axis they are turned into model FLOP utilisation; a row
that does not hold what that needs is left out, never guessed.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..errors import CatalogError
from ..machine.catalog import data_folder
from ..models._check import need

FILE = "published.csv"
NEEDED = (
    "id", "source", "source_location", "kind", "model", "params", "layers", "hidden", "seq", "vocab", "global_batch",
    "accelerator", "n_accel", "precision", "metric", "value", "unit", "ep", "group", "value_origin",
)  # fmt: skip
#: Metrics of the speed of a training step.
METRICS = (
    "iter_time_s", "tokens_per_s_per_accel", "samples_per_s_total", "model_tflops_per_accel", "hw_tflops_per_accel", "mfu_pct",
)  # fmt: skip
#: What the table writes -> what matrix products read.
PRECISIONS: Mapping[str, str] = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "fp8": "fp8",
    "fp8-cs": "fp8",
    "fp32": "fp32",
}
#: Distance of two devices: the same, of one family (A100 with 40 and with 80 GB), another. A decade of parameters is 1.
SAME, FAMILY, OTHER = 0.0, 0.25, 1.0
#: (device, precision) -> dense peak in flop/s, or None where nobody knows it.
Peak = Callable[[str, str], float | None]


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """One training run as its authors published it.

    Attributes:
        id: Of the row.
        source, place: The publication, and where in it.
        model: As the source calls it.
        parameters: Weights of the model.
        accelerator, accelerators: The device, and how many of them.
        precision: Of the matrix products.
        metric, printed: What was measured, and the number as printed.
        origin: "measured", or "derived" by the authors from other numbers.
        group: Rows of one run share it.
        mfu: Model FLOP utilisation, 0 to 1, from what was printed; None where the row does not hold enough.
        distance: From the plan that was asked for, in decades; see `distance`.
    """

    id: str
    source: str
    place: str
    model: str
    parameters: float
    accelerator: str
    accelerators: int
    precision: str
    metric: str
    printed: str
    origin: str
    group: str
    mfu: float | None = None
    distance: float = math.nan


def flop_per_token(parameters: float, layers: float, hidden: float, seq_len: float) -> float:
    """Return the model's arithmetic for one token, forward and backward, in flop: 6 N + 12 l h s.

    Args:
        parameters: Weights N that a token passes.
        layers, hidden, seq_len: Shape of the attention.

    Valid when: dense transformer, every token attends to the whole sequence.
    Off by: too high by up to 12 l h s / 2 where the source counts causal attention as half.
    Source: Chowdhery et al. 2022 (PaLM), appendix B; equal to Narayanan et al. 2021, equation 3, without recomputation.
    """
    return 6 * parameters + 12 * layers * hidden * seq_len


def distance(a: tuple[float, float, str], b: tuple[float, float, str]) -> float:
    """Return how far two runs are apart: the length of (decades of parameters, decades of accelerators, other device).

    Args:
        a, b: Parameters, accelerators, name of the device.

    Raises:
        ModelInputError: A count that is not positive.
    """
    for parameters, count, _ in (a, b):
        need("parameters", parameters, above=True)
        need("accelerators", count, above=True)
    device = SAME if _bare(a[2]) == _bare(b[2]) else FAMILY if _family(a[2]) == _family(b[2]) else OTHER
    return math.hypot(math.log10(a[0] / b[0]), math.log10(a[1] / b[1]), device)


def nearest(
    runs: Iterable[PublishedRun],
    parameters: float,
    accelerators: float,
    accelerator: str,
    count: int = 12,
    per_source: int = 3,
) -> list[PublishedRun]:
    """Return the runs nearest to a plan, nearest first, one row of each run; those without `mfu` are left out.

    Args:
        runs: From `published_runs`.
        parameters, accelerators, accelerator: Of the plan.
        count: How many at most.
        per_source: How many of one source: fifty variants of one experiment are one voice.

    Raises:
        ModelInputError: A count that is not positive.
    """
    here = (parameters, accelerators, accelerator)
    found: dict[str, PublishedRun] = {}
    for run in runs:
        if run.mfu is None:
            continue
        known = found.get(run.group)
        if known is None or (known.origin == "derived" and run.origin == "measured"):
            far = distance(here, (run.parameters, run.accelerators, run.accelerator))
            found[run.group] = replace(run, distance=far)
    kept: list[PublishedRun] = []
    heard: Counter[str] = Counter()
    for run in sorted(found.values(), key=lambda r: (r.distance, r.id)):
        if heard[run.source] < per_source:
            heard[run.source] += 1
            kept.append(run)
    return kept[:count]


@cache
def published_runs(peak: Peak, path: Path | None = None) -> tuple[PublishedRun, ...]:
    """Return the training runs of the published table whose model and number of accelerators are known.

    Args:
        peak: Turns rates into utilisation; called with the device's name as published, and the precision.
        path: Of the table; None is the one that ships.

    Raises:
        CatalogError: The table cannot be read, or lacks a column; with file:line.
    """
    where = path or data_folder() / FILE
    try:
        with where.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [c for c in NEEDED if c not in (rows.fieldnames or ())]
            if missing:
                raise CatalogError(f"{where.name}:1: no column {', '.join(missing)}; needed: {', '.join(NEEDED)}")
            found = [_run(row, f"{where.name}:{rows.line_num}", peak) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{where.name}: cannot be read ({error}); it must be a CSV file in UTF-8") from error
    return tuple(run for run in found if run is not None)


def _run(row: Mapping[str, str], where: str, peak: Peak) -> PublishedRun | None:
    """Return the run of one row; None where it is of something else, or of a model whose size was not published."""
    if row["kind"] not in {"perf", "scaling"} or row["metric"] not in METRICS:
        return None
    number = {
        c: _number(row[c], c, where)
        for c in ("params", "layers", "hidden", "seq", "vocab", "global_batch", "n_accel", "value", "ep")
    }
    parameters = _parameters(number)
    if not parameters or not number["n_accel"] or not number["value"] or (number["ep"] or 1) > 1:
        return None  # of a mixture of experts the table gives all weights, not those that a token passes
    if "lora" in row["model"].lower():
        return None  # most weights have no gradient: another arithmetic
    precision = PRECISIONS.get(row["precision"], "")
    known = peak(row["accelerator"], precision) if precision else None
    return PublishedRun(
        row["id"], row["source"], row["source_location"], row["model"], parameters, row["accelerator"], int(number["n_accel"]),
        precision, row["metric"], f"{row['value']} {row['unit']}", row["value_origin"], row["group"] or row["id"],
        _mfu(row["metric"], number, parameters, known),
    )  # fmt: skip


def _parameters(number: Mapping[str, float | None]) -> float | None:
    """Return the weights: as published, else 12 l h^2 + V h."""
    if number["params"]:
        return number["params"]
    layers, hidden, vocab = number["layers"], number["hidden"], number["vocab"]
    return 12 * layers * hidden**2 + vocab * hidden if layers and hidden and vocab else None


def _mfu(metric: str, number: Mapping[str, float | None], parameters: float, peak: float | None) -> float | None:
    """Return the utilisation that a row stands for; None where it does not hold enough."""
    value, count = number["value"] or 0.0, number["n_accel"] or 1.0
    if metric == "mfu_pct":
        return value / 100
    if peak is None:
        return None
    if metric == "model_tflops_per_accel":
        return value * 1e12 / peak
    layers, hidden, seq, batch = number["layers"], number["hidden"], number["seq"], number["global_batch"]
    if not (layers and hidden and seq):
        return None
    per_token = flop_per_token(parameters, layers, hidden, seq)
    if metric == "hw_tflops_per_accel":  # counts a second forward pass of the layers, not of the vocabulary
        inside = 12 * layers * hidden**2
        return value * 1e12 / peak * per_token / (per_token + 2 * inside + 4 * layers * hidden * seq)
    if metric == "tokens_per_s_per_accel":
        return value * per_token / peak
    if metric == "samples_per_s_total":
        return value * seq * per_token / (count * peak)
    return batch * seq * per_token / (value * count * peak) if batch else None


def _number(text: str, column: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        found = float(text)
    except ValueError as error:
        raise CatalogError(
            f"{where}: {column} is {text!r}; give a number, or nothing where it was not published"
        ) from error
    if not math.isfinite(found) or found < 0:
        raise CatalogError(f"{where}: {column} is {text!r}; give a number that is not negative")
    return found


def _bare(name: str) -> str:
    """Return a device's name without what the source adds in brackets, in small letters."""
    return name.split(" (")[0].strip().lower()


def _family(name: str) -> str:
    return _bare(name).split("-")[0]
