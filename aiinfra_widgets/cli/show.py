"""How the terminal shows things: tables by rich on standard output, live progress on standard error, JSON bare."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..comparison import compare
from ..machine.profile import QUIET_FRAC
from ..quantities import quantity, show
from ..runs.reader import RunReader
from ..runs.status import Status, status, traceback_of
from ..widgets.words import plural, said

if TYPE_CHECKING:
    from ..experiment import Experiment
    from ..machine.profile import Machine
    from .checks import Check

_COLOUR = {
    "done": "green",
    "stopped": "green",
    "running": "cyan",
    "starting": "cyan",
    "failed": "red",
    "ok": "green",
    "missing": "red",
    "limited": "yellow",
}


def as_json(data: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(data, indent=1, default=str, allow_nan=False))


def checks(found: Iterable[Check]) -> None:
    """Print what `doctor` found."""
    table = new_table("", "what", "found", "what to do")
    for c in found:
        table.add_row(_state(c.state), c.what, escape(c.found), escape(c.advice))
    console().print(table)


def fields(exp: Experiment) -> None:
    """Print an experiment's fields."""
    table = new_table("field", "default", "allowed", "live", "what it is")
    for k in exp.spec.knobs().values():
        table.add_row(k.name, str(k.default), escape(k.allowed), "yes" if k.live else "", escape(k.help))
    console().print(table)


def machine(found: Machine, path: Path) -> None:
    """Print the essence of a profile."""
    table = new_table("probe", "at", "median", "quartiles", "n", "method")
    for p in found.probes:
        at = ", ".join(f"{k} {v}" for k, v in p.at.items())
        table.add_row(
            p.name, at, show(p.unit, p.median), f"{show(p.unit, p.q25)} - {show(p.unit, p.q75)}", str(p.n), p.method
        )
    console().print(table)
    if found.disturbed_frac > QUIET_FRAC:
        console().print(
            f"[yellow]not quiet[/]: other programs used {found.disturbed_frac:.0%} of the processors; calibrate again later"
        )
    for h in found.hosts:
        quartiles = f", quartiles {h.q25:.2f} - {h.q75:.2f}, n {h.n}" if h.q25 is not None and h.q75 is not None else ""
        console().print(f"speed of {found.speeds_said([h])}{quartiles}", highlight=False)
        if h.contradiction:
            console().print(f"[yellow]speed[/] of {escape(h.contradiction)}", highlight=False)
    console().print(f"{found.cpu_model}, {found.cores} cores; profile written to {path}", highlight=False)


def runs(rows: list[dict[str, Any]]) -> None:
    """Print the list of runs."""
    if not rows:
        console().print("no runs yet; start one with: aiinfra run training --nodes 2", highlight=False)
        return
    table = new_table("run", "experiment", "status", "nodes", "ticks", "message")
    for r in rows:
        table.add_row(
            r["run"],
            str(r.get("experiment", "")),
            _state(r["status"]),
            str(r.get("nodes", "")),
            str(r.get("ticks", "")),
            escape(r["message"]),
        )
    console().print(table)


def result(reader: RunReader) -> None:
    """Print how a run ended: status, one table per segment, causes, and what to do next."""
    reader.poll()
    now, out = status(reader), console()
    for segment in reader.segments():
        found = compare(reader.experiment, segment)
        nodes = said(segment.spec.knobs()["nodes"], segment.spec.nodes)
        title = f"segment {segment.index}: {nodes}, {segment.ticks} {plural(reader.experiment.tick)} from {segment.first_tick}"
        table = new_table(
            "quantity",
            "predicted",
            "measured",
            "error",
            "verdict",
            title=title + (" (transient)" if segment.transient else ""),
        )
        for row in found.rows:
            if row.measured is None or row.measured.value is None:
                continue
            predicted = show(row.quantity, row.predicted.value if row.predicted else None)
            error = "" if row.relative_error is None else f"{row.relative_error:+.0%}"
            verdict = "" if row.verdict == "not compared" else row.verdict
            table.add_row(
                quantity(row.quantity).label,
                predicted,
                f"{show(row.quantity, row.measured.value)} ({row.measured.method})",
                error,
                verdict,
            )
        out.print(table)
        for cause in found.causes:
            out.print("  " + cause, highlight=False)
        if segment.refused:
            out.print(f"  no prediction: {escape(segment.refused)}", highlight=False)
    out.print(f"{_state(now.state)}: {escape(now.message)}", highlight=False)
    trace = traceback_of(reader) if now.state == "failed" else ""
    if trace:
        out.print(escape(trace.rstrip()), highlight=False)
    if now.next_step:
        out.print(f"next: {escape(now.next_step)}", highlight=False)
    out.print(f"run: {reader.run.path}", highlight=False, soft_wrap=True)


def answer(found: Mapping[str, Any], tick: str) -> None:
    """Print what became of a request (see `launch.schedule.ask_now`)."""
    words = {
        "applied": f"done at {tick} {found['tick']}, took {show('s', found['cost_s'])}",
        "refused": f"refused. {found['reason']}",
        "asked": f"asked, not decided yet; see: aiinfra watch {found['run']}",
    }
    seen = f"; the answer was here after {show('s', found['answer_s'])}" if found.get("answer_s") else ""
    console().print(escape(f"{found['asked']}: {words[found['kind']]}{seen}"), highlight=False, soft_wrap=True)


def report(done: Any, json_: bool) -> None:
    """Print where a report is, and why it failed if it did."""
    if json_:
        as_json(done.data)
        return
    console().print(f"{_state(done.status)}: {done.html}", highlight=False, soft_wrap=True)
    if done.error:
        console().print(escape(done.error), highlight=False)


class LiveRun:
    """One line per node that moves while a run goes on; nothing at all where the stream is no terminal."""

    def __init__(self, reader: RunReader, stream: TextIO) -> None:
        self.reader = reader
        self._console = Console(file=stream)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        )
        self._at = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, now: Status) -> None:
        """Redraw, five times a second at most."""
        if self._live is None or (time.monotonic() - self._at < 0.2 and not now.final):
            return
        self._at = time.monotonic()
        table = new_table(
            "node",
            self.reader.experiment.tick,
            *(quantity(n).label for n in self.reader.experiment.compared[:4]),
            title=f"{_state(now.state)} {escape(now.message)}",
        )
        for node, row in sorted(self.reader.latest().items()):
            told = ((n, row.get(n, math.nan)) for n in self.reader.experiment.compared[:4])
            values = ("" if math.isnan(v) else show(n, v) for n, v in told)
            table.add_row(str(node), str(int(row["tick"])), *values)
        self._live.update(table, refresh=True)


def progress(title: str) -> Callable[[float, str], None]:
    """Return a function (share done, what now) that shows progress on standard error: one line that moves, or every tenth."""
    console = Console(file=sys.stderr)
    said = [-1]

    def show_it(share: float, what: str) -> None:
        step = int(share * (100 if console.is_terminal else 10))
        if step == said[0]:
            return
        said[0] = step
        end = "\n" if share >= 1 or not console.is_terminal else "\r"
        console.print(f"{title}: {share:4.0%} {escape(what):<60.60}".rstrip(), end=end, highlight=False, soft_wrap=True)

    return show_it


def counted(title: str) -> Callable[[int, int, str], None]:
    """Return a function (done, of how many, what now) that shows progress like `progress`."""
    show_it = progress(title)
    return lambda done, total, what: show_it(done / max(total, 1), what)


def new_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table in the one style."""
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")


def _state(word: str) -> str:
    colour = _COLOUR.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def console() -> Console:
    """Return standard output, wide where it is no terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)


def plain(values: Mapping[str, Any]) -> str:
    """Return `a=1 b=2`."""
    return " ".join(f"{k}={v}" for k, v in values.items())
