"""The commands. Each is thin: it reads its arguments, calls the package, and prints."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .course import course
from .exchange import export, import_, machines
from .options import Hosts, Json, On, Slurm, duration_s, pairs, place
from .plan import plan
from .report import report
from .serve import serve
from .sweep import rerun, sweep
from .trace import trace
from .validate import validate

app = typer.Typer(
    help="Predict, run, change and compare AI infrastructure on real MPI ranks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(plan)
app.command()(serve)
app.command()(sweep)
app.command()(rerun)
app.command()(export)
app.command("import")(import_)
app.command()(machines)
app.command()(report)
app.command()(trace)
app.command()(validate)
app.add_typer(course, name="course")


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what is here, what is missing, and what to do about it."""
    from . import checks, show

    found = checks.run_all()
    show.as_json([asdict(c) for c in found]) if json_ else show.checks(found)
    raise typer.Exit(0 if all(c.state != "missing" for c in found) else 2)


@app.command()
def calibrate(
    seconds: Annotated[float, typer.Option(help="Longest time it may take.")] = 60.0,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing where there is a profile already.")
    ] = False,
    on: On = "",
    hosts: Hosts = None,
    json_: Json = False,
) -> None:
    """Measure this machine for at most a minute, so that predictions are made from what it can do.

    With --on hosts the links - what passes between ranks of one host, and between hosts - and how fast each host is, compared with
    this machine; what one host can do is known before.
    """
    from ..errors import SpecError
    from ..launch.calibrate import calibrate as measure
    from ..launch.calibrate import calibrate_hosts
    from ..launch.hosts import Hosts as Ssh
    from ..launch.session import this_machine
    from . import show

    there = place(on, None, hosts)
    if there is not None and not isinstance(there, Ssh):
        raise SpecError(f"on: got {on!r}; the links of hosts are calibrated: --on hosts --hosts file=FILE")
    known = this_machine(there)
    if if_missing and known.calibrated and (not there or known.hosts):
        print(f"this machine was calibrated: {known.id}", file=sys.stderr)
        return
    if there and not this_machine().calibrated:
        raise SpecError("calibrate: this machine itself was never measured; first: aiinfra calibrate")
    told = show.progress("calibrating")
    machine, path = calibrate_hosts(there, seconds, progress=told) if there else measure(seconds, progress=told)
    show.as_json(machine.to_json()) if json_ else show.machine(machine, path)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Which experiment; see --fields.")],
    nodes: Annotated[str | None, typer.Option(help="Number of MPI ranks that work.", show_default="1")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the experiment: key=value; repeatable.")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option(help='A change while it runs: "step=200 nodes=1"; repeatable.')
    ] = None,
    chaos: Annotated[
        list[str] | None,
        typer.Option(help='Break something while it runs: "kill=5s", "stop:2=20s", "slow:1=5s,share=0.8"; repeatable.'),
    ] = None,
    room: Annotated[int | None, typer.Option(help="Ranks to keep warm, so that the node count can grow to it.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder for run directories.")] = None,
    note: Annotated[str, typer.Option(help="Kept with the run.")] = "",
    detach: Annotated[bool, typer.Option(help="Start it, print its directory, and let it go on by itself.")] = False,
    on: On = "",
    slurm: Slurm = None,
    hosts: Hosts = None,
    fields: Annotated[bool, typer.Option("--fields", help="List the experiment's fields and end.")] = False,
    wait: Annotated[str, typer.Option(help='How long to wait for ranks that others have: "30min".')] = "",
    json_: Json = False,
) -> None:
    """Predict, run and compare one experiment."""
    from ..experiment import experiment as find
    from ..faults import parse
    from ..launch.schedule import ask_all, ask_faults, parse_changes, room_for

    exp = find(experiment)
    if fields:
        from . import show

        show.fields(exp)
        return
    spec = exp.spec.make(pairs([*(set_ or []), *([] if nodes is None else [f"nodes={nodes}"])]))
    changes, faults = parse_changes(exp, spec, change or []), parse(chaos or [])
    from ..launch.session import Session

    session = Session(grace_s=0.0, runs=runs, place=place(on, slurm, hosts))
    ranks = room_for(spec, changes, room)
    if wait and session.place is None:
        _wait(max(ranks, spec.ranks), session.machine, wait)
    reader = session.launch(exp.name, spec, room=ranks, note=note, detached=detach)
    try:
        ask_faults(session, reader, faults)
        if detach:
            ask_all(session, reader, changes)
            _started(reader.run.path, json_)
            return
        _follow(session, reader, changes, json_)
    finally:
        if not detach:
            session.close()


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="RUN", help='A run\'s id, the end of one, "last", or a path.')],
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
    room: Annotated[
        int | None, typer.Option(help="Ranks to hold at least; left out: as many as the run needs.")
    ] = None,
    on: On = "",
    slurm: Slurm = None,
    hosts: Hosts = None,
    json_: Json = False,
) -> None:
    """Continue a run from its last checkpoint."""
    from ..launch.session import Session
    from ..runs.layout import find

    session = Session(grace_s=0.0, runs=runs, place=place(on, slurm, hosts))
    reader = session.resume(find(name, session.runs), room=room or 1)
    try:
        _follow(session, reader, [], json_)
    finally:
        session.close()


@app.command()
def watch(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help='A run\'s id, the end of one, "last", or a path.')
    ] = "last",
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
) -> None:
    """Show a run live, whoever started it; leaving does not end it."""
    from ..launch.session import watch as look
    from ..runs.home import runs_folder
    from ..runs.layout import find
    from ..runs.reader import RunReader
    from . import show

    reader = RunReader(find(name, runs or runs_folder()))
    with show.LiveRun(reader, stream=sys.stdout) as live:
        for now in look(reader, every_s=0.2):
            live.update(now)
    show.result(reader)


@app.command()
def ask(
    name: Annotated[str, typer.Argument(metavar="RUN", help='A run\'s id, the end of one, "last", or a path.')],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[key=value ...] [VERB [argument=value ...]]", help="Live fields to set, or what to do."
        ),
    ],
    wait: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 10.0,
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
    json_: Json = False,
) -> None:
    """Change a run that goes on, whoever started it, or do something to it: "nodes=2", "checkpoint"; say what became of it."""
    from ..launch.schedule import ask_now
    from ..launch.session import Session
    from ..runs.layout import find
    from ..runs.reader import RunReader
    from . import show

    session = Session(grace_s=0.0, runs=runs)
    reader = RunReader(find(name, session.runs))
    answer = ask_now(session, reader, words, wait_s=wait)
    show.as_json(answer) if json_ else show.answer(answer, reader.experiment.tick)
    raise typer.Exit(1 if answer["kind"] == "refused" else 0)


@app.command()
def fault(
    name: Annotated[str, typer.Argument(metavar="RUN", help='A run\'s id, the end of one, "last", or a path.')],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND [argument=value ...]", help="What breaks, and how: stop seconds=20, slow share=0.8."
        ),
    ] = None,
    node: Annotated[int, typer.Option(help="Number of the node; -1 is the last one at work.")] = -1,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 10.0,
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
    json_: Json = False,
) -> None:
    """Break something in a run that goes on, for real; without KIND list what can be broken, and what happens then."""
    from ..faults import KINDS

    if not words:
        for known in KINDS.values():
            print(f"{known.name:<12}{' '.join(known.uses):<24}{known.help}")
        return
    kind, *more = words
    ask(name, ["fault", f"kind={kind}", f"node={node}", *more], wait, runs, json_)


@app.command("runs")
def runs_(
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None, json_: Json = False
) -> None:
    """List the runs, newest first."""
    from ..runs.home import runs_folder
    from ..runs.table import listing
    from . import show

    rows = listing(runs or runs_folder())
    show.as_json(rows) if json_ else show.runs(rows)


def _wait(ranks: int, machine: Any, text: str) -> None:
    from ..machine.limits import wait_for_room

    def tell(why: str) -> None:
        print(f"waiting: {why}", file=sys.stderr, flush=True)

    wait_for_room(ranks, machine, duration_s(text, "--wait"), tell)


def _started(path: Path, as_json: bool) -> None:
    print(json.dumps({"run": str(path), "status": "starting"}) if as_json else path)


def _follow(session: Any, reader: Any, changes: list[Any], as_json: bool) -> None:
    """Show a run until it ends; Ctrl-C stops it gracefully. Ends the command with the run's exit code."""
    from ..launch.schedule import ask_all
    from ..launch.session import watch as look
    from ..summary import summary
    from . import INTERRUPTED, show

    ask_all(session, reader, changes)
    interrupted: list[int] = []

    def stop(number: int, _: Any) -> None:
        if interrupted:  # the second time: at once
            session.close()
        interrupted.append(number)

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with show.LiveRun(reader, stream=sys.stderr) as live:
            for now in look(reader, until=lambda s: s.final or bool(interrupted)):
                live.update(now)
        if interrupted:
            now = session.stop(reader, by="interrupt")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if as_json:
        show.as_json(summary(reader))
    else:
        show.result(reader)
    raise typer.Exit(INTERRUPTED if interrupted or now.state == "interrupted" else 0 if now.ok else 2)
