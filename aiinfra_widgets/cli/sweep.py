"""`aiinfra sweep` and `aiinfra rerun`: many runs by a plan, resumable, to one tidy table."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpecError
from .options import Json, On, Slurm, place

if TYPE_CHECKING:
    from ..launch.place import Place
    from ..research.sweeps import Sweep

Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="New folder for the sweep.")]
#: Rows of points that are printed; the table has all.
_SHOWN = 40


def sweep(
    what: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT|FILE.yaml", help="Which experiment, or a file with the plan.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over", metavar="FIELD=A,B,C|A..B", help="A field that varies, with its values or its range; repeatable."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field that stays; repeatable.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="How often each point is taken.", show_default="1")] = None,
    design: Annotated[
        str | None, typer.Option(help="grid, one-at-a-time, latin-hypercube or sobol.", show_default="grid")
    ] = None,
    num_points: Annotated[int | None, typer.Option("--points", help="Points of a space-filling design.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order and of the design.", show_default="0")] = None,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Do not shuffle: take the points as they are written.")
    ] = False,
    new_seeds: Annotated[bool, typer.Option("--new-seeds", help="Each repeat gets another seed of its own.")] = False,
    limit: Annotated[
        float | None, typer.Option(help="Longest time of one run, in seconds.", show_default="600")
    ] = None,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="DIR", help="Go on with this sweep.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: run again what failed, was refused or took too long.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan and print its runs; nothing is written.")
    ] = False,
    on: On = "",
    slurm: Slurm = None,
    json_: Json = False,
) -> None:
    """Run an experiment at many points: predicted before, measured after, one table (Parquet and CSV) at the end."""
    from ..research import sweeps

    asked: dict[str, Any] = {
        "repeats": repeats, "design": design, "num_points": num_points, "seed": seed, "limit_s": limit,
        "shuffle": False if in_order else None, "new_seeds": new_seeds or None,
    }  # fmt: skip
    given = {k: v for k, v in asked.items() if v is not None}
    at = place(on, slurm, None)
    if resume is not None:
        if what or over or set_ or given or out:
            raise SpecError("--resume goes on with the plan as it is; give --resume DIR alone, or with --retry")
        _run(sweeps.open_sweep(resume), json_, retry, at)
        return
    if what is None:
        raise SpecError("which experiment? for example: aiinfra sweep training --over nodes=1,2 --repeats 3 -o DIR")
    if retry:
        raise SpecError("--retry goes with --resume DIR")
    if what.endswith((".yaml", ".yml")):
        from ..research.plan_file import read

        plan = read(Path(what))
        name = plan.pop("experiment")
    else:
        name, plan = what, {"over": {}, "fixed": {}}
    plan["over"] |= _pairs(over or [], "--over")
    plan["fixed"] |= _pairs(set_ or [], "--set")
    if dry:
        _dry(name, {**plan, **given}, json_)
        return
    _run(sweeps.plan_sweep(name, plan.pop("over"), out=out, **{**plan, **given}), json_, False, at)


def rerun(
    what: Annotated[
        str, typer.Argument(metavar="RUN|SWEEP", help="A sweep's folder, or a run's id, \"last\", or its path.")
    ],
    out: Out = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
    json_: Json = False,
) -> None:
    """Run again what you or somebody else ran - a sweep or a run, changes at their ticks included - on this machine, as something new."""
    from ..research import sweeps
    from ..runs.layout import holds

    if holds(what, "plan.json"):
        _run(sweeps.rerun(what, out), json_, False)
        return
    if out is not None:
        raise SpecError("-o goes with a sweep; a run is made in the folder of runs, which --runs sets")
    from ..launch.schedule import room_for
    from ..launch.session import Session
    from ..research.again import changes_of
    from ..runs.layout import find
    from ..runs.reader import RunReader
    from .app import _follow

    session = Session(grace_s=0.0, runs=runs)
    old = RunReader(find(what, session.runs))
    changes = changes_of(old)
    reader = session.launch(
        old.experiment.name, old.asked, room=room_for(old.asked, changes, None), note=f"again: {old.run.id}"
    )
    try:
        _follow(session, reader, changes, json_)
    finally:
        session.close()


def _pairs(words: list[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key or not value:
            raise SpecError(
                f"{option}: got {word!r}; write it as {option} nodes=1,2"
                if option == "--over"
                else f"{option}: got {word!r}; write it as key=value"
            )
        if key in found:
            raise SpecError(f"{option} {key}: given twice; give it once, with all its values")
        found[key] = value
    return found


def _dry(name: str, plan: dict[str, Any], json_: bool) -> None:
    """Print the runs of a plan."""
    from rich.markup import escape

    from ..research import sweeps
    from . import show

    trials, factors = sweeps.planned(name, plan.pop("over"), **plan)[1:]
    rows = [{f.name: getattr(t.spec, f.name) for f in factors} for t in trials]
    if json_:
        show.as_json(
            {
                "experiment": name,
                "runs": [{"point": t.point, "repeat": t.repeat, **r} for t, r in zip(trials, rows, strict=True)],
            }
        )
        return
    table = show.new_table("run", "point", "repeat", *(f.name for f in factors))
    for trial, row in list(zip(trials, rows, strict=True))[:_SHOWN]:
        table.add_row(str(trial.index), str(trial.point), str(trial.repeat), *(escape(str(v)) for v in row.values()))
    show.console().print(table)
    more = f", the first {_SHOWN} are shown" if len(trials) > _SHOWN else ""
    show.console().print(f"{len(trials)} runs{more}; nothing was written", highlight=False)


def _run(found: Sweep, json_: bool, retry: bool, at: Place | None = None) -> None:
    """Run what is left, print the outcome and end the command: 0, 2 where a trial failed, 3 where it was interrupted."""
    from . import FAILED, INTERRUPTED, show

    print(f"sweep: {found.path}", file=sys.stderr)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _by_array(found, at, retry) if at else found.run(show.counted("sweep"), retry=retry)
    except KeyboardInterrupt:
        kept = "Slurm goes on with it; look again with" if at else "interrupted; nothing is lost; go on with"
        print(f"{kept}: aiinfra sweep --resume {found.path}{' --on slurm' if at else ''}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if json_:
        show.as_json(found.to_json())
    else:
        _print(found)
    raise typer.Exit(FAILED if set(found.counts()) & {"failed", "timed-out"} else 0)


def _by_array(found: Sweep, at: Place, retry: bool) -> None:
    """Have a job array do what is left, and wait for it; one that is under way is only waited for."""
    from ..launch.slurm import SlurmRequest
    from ..research import array
    from . import show

    if not isinstance(at, SlurmRequest):
        raise SpecError(
            "--on: a sweep is handed to Slurm from a login node, as a job array; inside an allocation leave --on out"
        )
    job = array.going(found) or array.submit(found, at, retry=retry)
    if job:
        print(f"job array {job} of Slurm", file=sys.stderr)
    array.follow(found, show.counted("sweep"))


def _print(found: Sweep) -> None:
    from rich.markup import escape

    from ..quantities import quantity
    from ..quantities import show as human
    from . import show

    name = found.experiment.compared[0]
    table = show.new_table(
        *found.factors,
        "runs",
        f"{quantity(name).label}, predicted",
        "measured (median of runs)",
        "from - to",
        "problem",
    )
    summary = found.summary(name)
    for row in summary[:_SHOWN]:
        span = f"{human(name, row['least'])} - {human(name, row['most'])}" if row["measured"] is not None else ""
        cells = [str(row[f]) for f in found.factors]
        measured = human(name, row["measured"]) if row["measured"] is not None else ""
        table.add_row(
            *map(escape, cells), str(row["runs"]), human(name, row["predicted"]), measured, span, escape(row["problem"])
        )
    out = show.console()
    out.print(table)
    if len(summary) > _SHOWN:
        out.print(f"and {len(summary) - _SHOWN} other points; the table has them all", highlight=False)
    out.print(", ".join(f"{n} {state}" for state, n in found.counts().items()), highlight=False)
    out.print(f"table: {found.path / 'table.parquet'} (and .csv)", highlight=False, soft_wrap=True)
