"""`aiinfra export`, `import` and `machines`: what goes to other people, comes from them, and is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SpecError, near
from .options import Json

Runs = Annotated[Path | None, typer.Option(help="Folder of run directories.")]
FORMS = ("zip", "tensorboard", "mlflow", "table")


def export(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN|SWEEP...", help='Ids of runs, "last", or paths of runs and sweeps.')
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="A new .zip, .parquet or .csv; a folder for tensorboard; an SQLite file for mlflow.",
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help="zip, table, tensorboard or mlflow.", show_default="by the ending of -o")
    ] = "",
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints/--no-checkpoints", help="With the states that a run can be resumed from.")
    ] = True,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Hand over runs: an archive to open and rerun elsewhere, one table, or the files of TensorBoard and MLflow."""
    from ..research import archive, trackers
    from ..runs.home import runs_folder
    from ..runs.layout import find, holds

    form = to or ("table" if out.suffix in {".parquet", ".csv"} else "zip")
    if form not in FORMS:
        raise SpecError(f"--to: got {to!r}; {near(to, FORMS)}")
    found = [Path(n) if holds(n, "plan.json") else find(n, runs or runs_folder()).path for n in names]
    if form == "zip":
        made: list[Any] = [archive.pack(found, out, checkpoints=checkpoints)]
    elif form == "table":
        made = [_table(found, out)]
    else:
        flat = [r for path in found for r in _runs_of(path)]
        made = trackers.to_tensorboard(flat, out) if form == "tensorboard" else trackers.to_mlflow(flat, out)
    _say(json_, form, made)


def import_(
    archive: Annotated[Path, typer.Argument(help="Made by `aiinfra export`.")],
    runs: Runs = None,
    sweeps: Annotated[Path | None, typer.Option(help="Folder for sweeps.")] = None,
    json_: Json = False,
) -> None:
    """Open somebody's archive: checked before anything is written, nothing is overwritten. Then: aiinfra rerun NAME."""
    from ..research.archive import unpack

    _say(json_, "import", unpack(archive, runs=runs, sweeps=sweeps))


def machines(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[A B]", help='Two profiles: ids, ends of them, "newest", "previous", or files.'),
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Measure this machine again, and compare with before.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every probe, not one line for each kind.")] = False,
    json_: Json = False,
) -> None:
    """List machine profiles, or say what differs between two, by how much, with quartiles."""
    from ..research import machines as profiles
    from . import show

    given = list(names or [])
    if recalibrate:
        if given:
            raise SpecError("--recalibrate compares this machine with itself; give no names")
        from ..launch.calibrate import calibrate
        from ..launch.session import this_machine

        before = this_machine()
        after, _ = calibrate(progress=show.progress("calibrating"))
        _compare(before, after, all_, json_)
        return
    if not given:
        _list(profiles.profiles(), json_)
        return
    if len(given) != 2:
        raise SpecError(f"got {len(given)} profile; give two to compare, or none for the list")
    _compare(profiles.profile(given[0]), profiles.profile(given[1]), all_, json_)


def _table(found: list[Path], out: Path) -> Path:
    import pandas as pd

    from ..errors import ControlError
    from ..research import table
    from ..research.sweeps import open_sweep

    if out.exists():
        raise ControlError(f"{out} is there already; choose a new name")
    tables = [open_sweep(p).table() if (p / "plan.json").is_file() else table.runs_table([p]) for p in found]
    whole = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    if out.suffix == ".csv":
        return table.write_csv(whole, out)
    if out.suffix == ".parquet":
        return table.write_parquet(whole, out)
    raise SpecError(f"{out.name}: a table ends in .parquet or .csv")


def _runs_of(path: Path) -> list[Path]:
    """Return the run itself, or the runs that a sweep counts."""
    if not (path / "plan.json").is_file():
        return [path]
    from ..research.sweeps import open_sweep

    sweep = open_sweep(path)
    return [sweep.folder.runs / end.run for end in sweep.ends().values() if end.run]


def _say(json_: bool, form: str, made: list[Any]) -> None:
    from rich.markup import escape

    from . import show

    if json_:
        show.as_json({"form": form, "made": [str(m) for m in made]})
        return
    for one in made:
        show.console().print(escape(str(one)), highlight=False, soft_wrap=True)


def _list(found: list[Any], json_: bool) -> None:
    from rich.markup import escape

    from ..machine.profile import QUIET_FRAC
    from . import show

    if json_:
        show.as_json(
            [
                {k: getattr(m, k) for k in ("id", "made_at", "cpu_model", "cores", "memory_bytes", "disturbed_frac")}
                | {"probes": len(m.probes)}
                for m in found
            ]
        )
        return
    if not found:
        show.console().print("no profile yet; make one with: aiinfra calibrate", highlight=False)
        return
    table = show.new_table("machine", "calibrated", "processor", "cores", "GPUs", "probes", "quiet")
    for m in found:
        quiet = "yes" if m.disturbed_frac <= QUIET_FRAC else f"no: others used {m.disturbed_frac:.0%}"
        table.add_row(m.id, m.made_at, escape(m.cpu_model), str(m.cores), str(len(m.gpus)), str(len(m.probes)), quiet)
    show.console().print(table)


def _compare(first: Any, second: Any, all_: bool, json_: bool) -> None:
    from rich.markup import escape

    from ..machine.profile import QUIET_FRAC
    from ..quantities import show as human
    from ..research import machines as profiles
    from . import show

    found = profiles.compare(first, second)
    if json_:
        show.as_json(
            {
                "first": first.id,
                "second": second.id,
                "kinds": profiles.summary(found),
                "probes": [d.to_json() for d in found],
            }
        )
        return
    out = show.console()
    out.print(f"{second.id} against {first.id}; 2× is twice the number, better or worse by its unit", highlight=False)
    if all_:
        table = show.new_table("probe", "at", "first (quartiles)", "second (quartiles)", "ratio", "beyond the scatter")
        for d in found:
            sides = [
                f"{human(d.unit, p.median)} ({human(d.unit, p.q25)} - {human(d.unit, p.q75)})" if p else "not measured"
                for p in (d.first, d.second)
            ]
            ratio = (
                ""
                if d.ratio is None
                else f"{d.ratio:.2f}×"
                + (f" ({d.low:.2f} - {d.high:.2f})" if d.low is not None and d.high is not None else "")
            )
            table.add_row(d.name, escape(d.at), *sides, ratio, {True: "yes", False: "no", None: "not known"}[d.apart])
    else:
        table = show.new_table("probe", "unit", "points", "ratio (median)", "from - to", "beyond the scatter")
        for row in profiles.summary(found):
            span = f"{row['least']:.2f}× - {row['most']:.2f}×" if row["compared"] else "only one of them has it"
            ratio = f"{row['ratio']:.2f}×" if row["compared"] else ""
            table.add_row(
                row["probe"], row["unit"], str(row["points"]), ratio, span, f"{row['apart']} of {row['compared']}"
            )
    out.print(table)
    for m in (first, second):
        if m.disturbed_frac > QUIET_FRAC:
            out.print(
                f"{m.id} was not quiet: other programs used {m.disturbed_frac:.0%} of its processors", highlight=False
            )
