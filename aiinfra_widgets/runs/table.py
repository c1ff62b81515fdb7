"""Many runs as one table, by DuckDB over the directories: nothing to administer, nothing to keep in step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from .layout import RunDir
from .reader import RunReader
from .status import status

if TYPE_CHECKING:
    import pandas as pd


def listing(folder: Path, *, most: int = 200) -> list[dict[str, Any]]:
    """Return the newest runs in `folder`, newest first, with their status; a folder that is no run is skipped.

    A run of another format, or one that is damaged, is listed with the reason as its message.
    """
    rows = []
    for path in sorted(folder.glob("*/run.json"), reverse=True)[:most]:
        run = RunDir(path.parent)
        try:
            manifest = run.read_manifest()
            reader = RunReader(run)
            reader.poll()
            now = status(reader)
            spec = manifest["spec"]
            rows.append(
                {
                    "run": run.id, "experiment": manifest["experiment"], "status": now.state, "nodes": reader.spec.nodes,
                    "ticks": max(now.last_tick.values(), default=0), "made_at": manifest["made_at"], "message": now.message,
                    "note": manifest.get("note", ""), "workload": spec.get("workload", ""), "path": str(run.path),
                }
            )  # fmt: skip
        except (LabError, KeyError, ValueError) as error:
            rows.append({"run": run.id, "status": "unreadable", "message": str(error), "path": str(run.path)})
    return rows


def samples(folder: Path, query: str = "select * from samples") -> pd.DataFrame:
    """Run SQL over every sample of every run in `folder`.

    Args:
        folder: Where runs live.
        query: DuckDB SQL. Tables: `samples` (run, incarnation, node, tick, t_s, nodes, segment, and the measured
            quantities; columns that a run lacks are NULL) and `runs` (run, experiment, made_at, machine_id, spec as JSON).

    Returns:
        The result as a data frame.
    """
    import duckdb
    import pandas as pd

    rows = []
    for path in sorted(folder.glob("*/run.json")):
        try:
            data = RunDir(path.parent).read_manifest()
            rows.append(
                {
                    "run": path.parent.name,
                    **{k: data[k] for k in ("experiment", "made_at", "machine_id")},
                    "spec": json.dumps(data["spec"]),
                }
            )
        except (LabError, KeyError):
            continue
    connection = duckdb.connect()
    connection.register("runs", pd.DataFrame(rows, columns=["run", "experiment", "made_at", "machine_id", "spec"]))
    files = [str(p) for p in folder.glob("*/samples/*.csv") if p.stat().st_size]
    if files:
        connection.execute(
            """create view samples as
               select regexp_extract(filename, '([^/]+)/samples/', 1) as run,
                      cast(regexp_extract(filename, '(\\d+)-(\\d+)\\.csv', 1) as int) as incarnation,
                      cast(regexp_extract(filename, '(\\d+)-(\\d+)\\.csv', 2) as int) as node, * exclude (filename)
               from read_csv(?, union_by_name=true, filename=true, ignore_errors=true, header=true)""".replace(
                "?", "[" + ", ".join("'" + f.replace("'", "''") + "'" for f in files) + "]"
            )
        )
    else:
        connection.execute(
            "create view samples as select '' as run, 0 as incarnation, 0 as node, 0 as tick where false"
        )
    return connection.execute(query).df()
