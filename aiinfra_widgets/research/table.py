"""One tidy table: a row for each trial, segment and quantity, predicted and measured side by side.

Why this shape: it is what `groupby`, `pivot`, seaborn and ggplot2 take as it is. "The step time over nodes, by batch" is a filter on
`quantity` and two columns; a wide table would need a name for each quantity times predicted, measured, low and high. `wide` makes
that one where somebody wants it. The factors are columns under their own names. The fields that do not vary are one column of JSON,
so that nothing is lost and the table stays readable. A trial that failed or was refused has rows too: what was predicted, nothing
measured, and the reason. An empty measured cell is "not measured", 0.0 is a measured zero.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison import Row, compare
from ..errors import LabError, StorageError
from ..experiment import Experiment, Spec
from ..machine.profile import Machine
from ..quantities import Prediction, Value, quantity
from ..runs.layout import RunDir
from ..runs.reader import RunReader, Segment
from . import folder as folders

if TYPE_CHECKING:
    import pandas as pd

    from .sweeps import End, Sweep

#: Columns with their type, in order; the factors stand after `order`. Text may be null.
COLUMNS: dict[str, str] = {
    "experiment": "string", "trial": "Int64", "point": "Int64", "repeat": "Int64",
    "state": "string", "reason": "string", "segment": "Int64", "settled": "boolean",
    "quantity": "string", "label": "string", "unit": "string", "better": "string",
    "predicted": "Float64", "predicted_low": "Float64", "predicted_high": "Float64", "predicted_method": "string",
    "measured": "Float64", "measured_low": "Float64", "measured_high": "Float64", "measured_spread": "string",
    "measured_method": "string", "n": "Int64", "relative_error": "Float64", "verdict": "string",
    "seed": "Int64", "spec": "string", "run": "string", "made_at": "string", "wall_s": "Float64",
    "machine_id": "string", "cpu_model": "string", "cores": "Int64", "calibrated_at": "string",
    "git_commit": "string", "git_dirty": "boolean", "lab_git_commit": "string", "lab_git_dirty": "boolean", "versions": "string",
}  # fmt: skip
_TYPES = {"string": "VARCHAR", "Int64": "BIGINT", "Float64": "DOUBLE", "boolean": "BOOLEAN"}
#: A spreadsheet takes a cell that begins so for a formula, and runs it (OWASP, "CSV injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def sweep_table(sweep: Sweep) -> pd.DataFrame:
    """Return the table of a sweep as it is now; a trial that has not ended is no row yet.

    Each trial counts with the run of its last attempt. `order` is not a column of its own: `trial` is the order of execution.
    """
    ends = sweep.ends()
    rows: list[dict[str, Any]] = []
    common = {"experiment": sweep.experiment.name, **_origin(sweep.machine, sweep.plan.get("provenance") or {})}
    for trial in sweep.trials:
        end = ends.get(trial.index)
        if end is None:
            continue
        about = {
            **common, "trial": trial.index, "point": trial.point, "repeat": trial.repeat, "state": end.state, "reason": end.reason or None,
            "run": end.run, "wall_s": end.wall_s, **_asked(trial.spec, sweep.factors),
        }  # fmt: skip
        rows += [{**about, **row} for row in _of_trial(sweep, trial.spec, end)]
    return frame(rows, sweep.factors)


def runs_table(runs: Sequence[RunDir | Path | str], factors: Sequence[str] = ("nodes",)) -> pd.DataFrame:
    """Return the same table of runs that no sweep made, such as those of a lab: each run is a trial of its own.

    Args:
        runs: Run directories.
        factors: Fields that get a column.

    Raises:
        RunFormatError: Not a run.
    """
    rows: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        reader = RunReader(run)
        reader.poll()
        about = {
            "experiment": reader.experiment.name, "trial": i, "point": i, "repeat": 0, "run": reader.run.id,
            "made_at": reader.manifest.get("made_at"), **_origin(reader.machine, {"versions": reader.manifest.get("versions")}),
        }  # fmt: skip
        for segment in reader.segments():
            asked = _asked(segment.spec, factors)
            rows += [{**about, **asked, **row} for row in _of_segment(reader.experiment, segment)]
    return frame(rows, factors)


def _of_trial(sweep: Sweep, spec: Spec, end: End) -> Iterator[dict[str, Any]]:
    try:
        reader = RunReader(sweep.folder.runs / end.run) if end.run else None
        if reader is not None:
            reader.poll()
        segments = reader.segments() if reader is not None else []
    except (LabError, ValueError, KeyError, OSError) as error:
        predicted, _ = folders.prediction_of(sweep.folder, spec)
        yield from (
            {**row, "state": "unreadable", "reason": str(error)} for row in _predicted_only(sweep.experiment, predicted)
        )
        return
    made_at = reader.manifest.get("made_at") if reader is not None else None
    for segment in segments:
        yield from ({"made_at": made_at, **row} for row in _of_segment(sweep.experiment, segment))
    if not segments:
        predicted, why = folders.prediction_of(sweep.folder, spec)
        reason = {"reason": "; ".join(w for w in (end.reason, why) if w)} if why else {}
        yield from ({"made_at": made_at, **row, **reason} for row in _predicted_only(sweep.experiment, predicted))


def _of_segment(exp: Experiment, segment: Segment) -> Iterator[dict[str, Any]]:
    about = {"segment": segment.index, "settled": not segment.transient}
    for row in compare(exp, segment).rows:
        if _number(row.predicted) is not None or _number(row.measured) is not None:
            yield {**about, **_cells(row)}


def _predicted_only(exp: Experiment, predicted: Prediction | None) -> Iterator[dict[str, Any]]:
    """Rows of a trial that measured nothing; without a prediction one row with no quantity, so that no trial is missing."""
    found = [v for v in predicted.values.values() if _number(v) is not None] if predicted else []
    if not found:
        yield {}
    for value in found:
        yield _cells(Row(value.quantity, value, None, None, "not compared"))


def _cells(row: Row) -> dict[str, Any]:
    about, p, m = quantity(row.quantity), row.predicted, row.measured
    spread = None if m is None or m.low is None else "95 % interval" if m.interval else "quartiles"
    return {
        "quantity": about.name, "label": about.label, "unit": about.unit, "better": about.better,
        "predicted": _number(p), "predicted_low": p.low if p else None, "predicted_high": p.high if p else None,
        "predicted_method": p.method if p else None, "measured": _number(m), "measured_low": m.low if m else None,
        "measured_high": m.high if m else None, "measured_spread": spread, "measured_method": m.method if m else None,
        "n": m.n if m else None, "relative_error": row.relative_error, "verdict": row.verdict,
    }  # fmt: skip


def _number(value: Value | None) -> float | None:
    return float(value.value) if value is not None and isinstance(value.value, int | float) else None


def _asked(spec: Spec, factors: Sequence[str]) -> dict[str, Any]:
    whole = spec.model_dump()
    return {
        **{f: whole[f] for f in factors},
        "seed": spec.seed,
        "spec": json.dumps({k: v for k, v in whole.items() if k not in factors}),
    }


def _origin(machine: Machine, made: Mapping[str, Any]) -> dict[str, Any]:
    git, lab = made.get("git") or {}, made.get("lab_git") or {}
    return {
        "machine_id": machine.id, "cpu_model": machine.cpu_model, "cores": machine.cores,
        "calibrated_at": machine.made_at if machine.calibrated else None,
        "git_commit": git.get("commit"), "git_dirty": git.get("dirty"),
        "lab_git_commit": lab.get("commit"), "lab_git_dirty": lab.get("dirty"), "versions": json.dumps(made.get("versions") or {}),
    }  # fmt: skip


def frame(rows: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> pd.DataFrame:
    """Return rows as a data frame with every column of COLUMNS, typed, also when there is no row."""
    import pandas as pd

    head = ["experiment", "trial", "point", "repeat"]
    own = [f for f in factors if f not in COLUMNS]
    order = [*head, *own, *(c for c in COLUMNS if c not in head)]
    data = pd.DataFrame([dict(r) for r in rows], columns=order)
    return data.astype({**COLUMNS, **{f: _type(data[f]) for f in own}})


def _type(column: Any) -> str:
    kinds = {type(v) for v in column if v is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64"
    return "Float64" if kinds and kinds <= {int, float} else "string"


def wide(table: pd.DataFrame, quantities: Sequence[str], *, factors: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row for each trial and settled segment, with `QUANTITY` and `QUANTITY_predicted` as columns."""
    import pandas as pd

    settled = table[table["settled"].fillna(False) & table["quantity"].isin(list(quantities))]
    keys = ["trial", "segment", "point", "repeat", *factors]
    both = settled.pivot_table(
        index=keys, columns="quantity", values=["measured", "predicted"], aggfunc="first", dropna=True
    )
    both.columns = pd.Index([c[1] if c[0] == "measured" else f"{c[1]}_{c[0]}" for c in both.columns.to_flat_index()])
    return both.reset_index()


def write_tables(sweep: Sweep) -> tuple[Path, Path]:
    """Write table.parquet and table.csv into the sweep's directory, and return their paths; both follow from what lies there."""
    table = sweep.table()
    about = {k: v for k, v in sweep.plan.items() if k != "trials"}
    return (
        write_parquet(table, sweep.path / "table.parquet", about),
        write_csv(table, sweep.path / "table.csv"),
    )


def write_parquet(table: pd.DataFrame, path: Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write `table` as Parquet (by DuckDB, compressed with zstd), atomically.

    Args:
        table: From `sweep_table`, `runs_table` or `frame`.
        path: Target; replaced.
        about: Kept in the file's metadata under "aiinfra", as JSON.

    Raises:
        StorageError: It cannot be written.
    """
    import duckdb

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Types are said, not guessed: a column without a single value would become an integer.
    said = ", ".join(f'cast("{c}" as {_TYPES[str(t)]}) as "{c}"' for c, t in table.dtypes.items())
    with duckdb.connect() as connection:
        connection.register("made", table.astype(dict.fromkeys(table.columns, "object")).where(table.notna(), None))
        meta = json.dumps(dict(about or {}), default=str).replace("'", "''")
        name = str(part).replace("'", "''")
        try:
            connection.execute(
                f"copy (select {said} from made) to '{name}' (format parquet, compression zstd, kv_metadata {{aiinfra: '{meta}'}})"  # noqa: S608
            )
            part.replace(path)
        except (OSError, duckdb.Error) as error:
            part.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    return path


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write `table` as UTF-8 CSV, atomically. A text that a spreadsheet would run as a formula gets an apostrophe before it.

    Raises:
        StorageError: It cannot be written.
    """
    safe = table.copy()
    for column in (c for c, t in table.dtypes.items() if str(t) == "string"):
        safe[column] = [_harmless(v) if isinstance(v, str) else None for v in table[column]]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        safe.to_csv(part, index=False, lineterminator="\n")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return path


def _harmless(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # a bare one is not put into quotes, and begins a row
    return "'" + text if text.startswith(FORMULA) else text
