"""`aiinfra validate`: how far off the models are on published measurements, and what simple rules would have said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

if TYPE_CHECKING:
    from ..validation.validate import Group, Validation

#: What a pool's errors are of, for a person.
POOL_WORDS = {
    "iteration_time": "time of a training step, from any performance metric",
    "time_to_train_ratio": "time to train against the smallest system of its submitter",
    "serving_time": "time per token of serving",
    "memory": "memory per accelerator",
    "communication": "bandwidth of collectives and copies",
    "power_energy": "power and energy",
    "derived": "values that others computed from other rows: no evidence",
}
#: Reasons that are printed for rows that are not expressed; --json has all.
_SHOWN = 12


def validate(
    csv: Annotated[
        Path | None,
        typer.Argument(help="Published rows; the columns are those of data/published.csv.", show_default="ours"),
    ] = None,
    cross: Annotated[
        bool, typer.Option("--cross/--no-cross", help="Also fit without each source, and predict that source.")
    ] = True,
    strict: Annotated[bool, typer.Option(help="Fail where a row cannot be expressed.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
    ] = False,
) -> None:
    """Run every model on published measured rows with one parameter set, and print how far off each group is."""
    from ..validation import rows as table
    from ..validation.validate import validate as run
    from . import show

    ours = table.read(table.shipped())
    published = ours if csv is None else table.read(csv)
    found = run(published, cross=cross, fitted_on=[r["id"] for r in ours if r["kind"] in ("perf", "scaling")])
    left = [r for r in found.results if r.error is None]
    if json_:
        show.as_json(found.record())
    else:
        _print(found)
    if strict and left:
        print(f"{len(left)} rows could not be expressed; the first: {left[0].reason}", file=sys.stderr)
        raise typer.Exit(2)


def _print(found: Validation) -> None:
    from . import show

    out = show.console()
    out.print(_groups(found))
    out.print()
    pools = show.new_table("pool", "rows", "error (mean absolute)", "of")
    for pool, figures in found.pooled().items():
        pools.add_row(pool, str(figures["rows"]), f"{figures['mape']:.1f} %", POOL_WORDS[pool])
    out.print(pools)
    out.print()
    rules = show.new_table(
        "on the time of a training step", "rows", "error", "each source predicted without its own rows"
    )
    crossed = found.cross_validated()
    jobs = found.pooled().get("iteration_time")
    if jobs:
        without = f"{crossed['mape']:.1f} % ({crossed['rows']} rows of transformers)" if crossed else "not asked for"
        rules.add_row("these models, one parameter set", str(jobs["rows"]), f"{jobs['mape']:.1f} %", without)
    for b in found.baselines:
        held = "" if b.held_out_mape is None else f"{b.held_out_mape:.1f} %"
        rules.add_row(b.name, str(b.rows), f"{b.mape:.1f} %", held)
    out.print(rules)
    _print_left(found)


def _groups(found: Validation) -> object:
    from . import show

    table = show.new_table("source", "kind, metric", "rows", "expressed", "error", "median", "bias", "worst row")
    for g in found.groups:
        name = f"{g.source}{' · ' + g.table if g.table else ''}"
        cells = (
            [f"{g.mape:.1f} %", f"{g.median:.1f} %", f"{g.bias:+.1f} %", _worst(g)] if g.expressed else ["", "", "", ""]
        )
        table.add_row(escape(name), f"{g.kind}, {g.metric}", str(g.rows), str(g.expressed), *cells)
    return table


def _worst(g: Group) -> str:
    return f"{g.worst} {g.worst_error:+.0f} %"


def _print_left(found: Validation) -> None:
    from . import show

    left = [r for r in found.results if r.error is None]
    if not left:
        return
    out = show.console()
    reasons: dict[str, list[str]] = {}
    for r in left:
        reasons.setdefault(r.reason.split(": ", 1)[-1], []).append(r.row.where)
    out.print(f"\n{len(left)} of {len(found.results)} rows are not predicted:")
    for reason, places in sorted(reasons.items(), key=lambda item: -len(item[1]))[:_SHOWN]:
        out.print(f"  {len(places):3}  {escape(reason)}  ({places[0]}{' ...' if len(places) > 1 else ''})")
    if len(reasons) > _SHOWN:
        out.print(f"  and {len(reasons) - _SHOWN} other reasons; --json has them all")
