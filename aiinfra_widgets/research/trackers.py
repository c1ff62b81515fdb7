"""A run in other people's trackers: TensorBoard event files, and MLflow's own database. Both are optional extras, imported only here.

What was measured at each tick is a series; what was predicted is one too, constant over its segment, under its own name.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..comparison import compare
from ..errors import ControlError, StorageError, UnknownNameError
from ..quantities import QUANTITIES
from ..runs.layout import RunDir
from ..runs.reader import RunReader

#: MLflow takes no more in one call.
_BATCH = 1000
Point = tuple[str, int, float, float]


def _need(package: str, extra: str, error: ImportError) -> UnknownNameError:
    return UnknownNameError(f"{package} is not installed ({error}); get it with: pip install 'aiinfra-lab[{extra}]'")


def series(reader: RunReader) -> Iterator[Point]:
    """Yield (name, tick, value, wall time in s) of everything that a run measured at a tick or predicted for a segment."""
    reader.poll()
    ticks = reader.ticks
    # Samples carry the monotonic clock, events both: the difference turns one into the other.
    offset_s = next((e["wall_s"] - e["t_s"] for e in reader.events if "wall_s" in e), 0.0)
    for name in (c for c in ticks.columns if c in QUANTITIES):
        for tick, t_s, value in zip(ticks["tick"], ticks["t_s"], ticks[name], strict=True):
            if math.isfinite(value):
                yield f"measured/{name}", int(tick), float(value), float(t_s) + offset_s
    for segment in reader.segments():
        if segment.prediction is None or not segment.ticks:
            continue
        ends = (
            (segment.first_tick + 1, segment.t_s),
            (segment.first_tick + segment.ticks, segment.t_s + segment.elapsed_s),
        )
        for name, value in segment.prediction.values.items():
            if isinstance(value.value, int | float) and math.isfinite(value.value):
                yield from ((f"predicted/{name}", tick, float(value.value), t_s + offset_s) for tick, t_s in ends)


def medians(reader: RunReader) -> dict[str, float]:
    """Return what each segment came to: `segment0/step_time_s` measured, `segment0/predicted/step_time_s` predicted."""
    found: dict[str, float] = {}
    for segment in reader.segments():
        for row in compare(reader.experiment, segment).rows:
            for side, value in (("", row.measured), ("predicted/", row.predicted)):
                if value is not None and isinstance(value.value, int | float) and math.isfinite(value.value):
                    found[f"segment{segment.index}/{side}{row.quantity}"] = float(value.value)
    return found


def to_tensorboard(runs: Sequence[RunDir | Path | str], folder: Path | str) -> list[Path]:
    """Write event files for TensorBoard, a folder for each run, and return these.

    Args:
        runs: Run directories.
        folder: What `tensorboard --logdir` is given.

    Raises:
        UnknownNameError: TensorBoard is not installed.
        ControlError: A run was written there before; nothing was changed.
        StorageError: It cannot be written.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise _need("tensorboard", "track", error) from error
    readers = [RunReader(r) for r in runs]
    targets = [Path(folder).expanduser().resolve() / r.run.id for r in readers]
    for target in targets:
        if target.exists():
            raise ControlError(f"{target} is there already, and is left as it is; choose another folder")
    for reader, target in zip(readers, targets, strict=True):
        try:
            target.mkdir(parents=True)
            writer = EventFileWriter(str(target))
            asked = {
                k: v if isinstance(v, bool | int | float | str) else str(v)
                for k, v in reader.asked.model_dump().items()
            }
            made_s = float(reader.manifest.get("made_at_s", time.time()))
            writer.add_event(
                Event(wall_time=made_s, step=0, summary=summary_v2.hparams_pb(asked, start_time_secs=made_s))
            )
            for name, tick, value, wall_s in series(reader):
                about = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                writer.add_event(Event(wall_time=wall_s, step=tick, summary=about))
            writer.close()
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return targets


def to_mlflow(runs: Sequence[RunDir | Path | str], database: Path | str) -> list[str]:
    """Add runs to an MLflow database on this disk, made where there is none, and return MLflow's ids of them.

    A run that was added before is left as it is. Look at them with `mlflow ui --backend-store-uri sqlite:///FILE`.

    Args:
        runs: Run directories.
        database: An SQLite file; never an address on a network.

    Raises:
        UnknownNameError: MLflow is not installed.
        StorageError: It cannot be written.
    """
    # MLflow reports its use to its makers unless it is told not to, before it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _need("mlflow", "track", error) from error
    path = Path(database).expanduser().resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=f"sqlite:///{path}")
        return [_add(client, RunReader(run), path) for run in runs]
    except ImportError as error:  # its database layer is a package of its own
        raise _need("mlflow's database layer", "track", error) from error
    except (MlflowException, OSError) as error:
        raise StorageError(f"MLflow cannot use {path}: {error}") from error


def _add(client: Any, reader: RunReader, path: Path) -> str:
    from mlflow.entities import Metric, Param, RunTag

    reader.poll()
    name = f"aiinfra-{reader.experiment.name}"
    known = client.get_experiment_by_name(name)
    files = (path.parent / "mlflow-artifacts" / name).as_uri()
    experiment_id = known.experiment_id if known else client.create_experiment(name, artifact_location=files)
    before = client.search_runs([experiment_id], f"tags.aiinfra_run = '{reader.run.id}'", max_results=1)
    if before:
        return str(before[0].info.run_id)
    made_ms = int(1000 * float(reader.manifest.get("made_at_s", time.time())))
    run = client.create_run(experiment_id, start_time=made_ms, run_name=reader.run.id)
    tags = {
        "aiinfra_run": reader.run.id, "machine_id": reader.machine.id, "calibrated_at": reader.machine.made_at,
        "note": str(reader.manifest.get("note", "")),
        **{f"version.{k}": str(v) for k, v in (reader.manifest.get("versions") or {}).items()},
    }  # fmt: skip
    params = [Param(k, str(v)) for k, v in reader.asked.model_dump().items()]
    client.log_batch(run.info.run_id, params=params, tags=[RunTag(k, v) for k, v in tags.items()])
    points = [Metric(n, v, int(1000 * wall_s), tick) for n, tick, v, wall_s in series(reader)]
    points += [Metric(n, v, made_ms, 0) for n, v in medians(reader).items()]
    for i in range(0, len(points), _BATCH):
        client.log_batch(run.info.run_id, metrics=points[i : i + _BATCH])
    last_s = max((e["wall_s"] for e in reader.events if "wall_s" in e), default=made_ms / 1000)
    client.set_terminated(run.info.run_id, "FINISHED", int(1000 * last_s))
    return str(run.info.run_id)
