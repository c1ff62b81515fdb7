"""`aiinfra validate`: how far off the models are on published measurements, and what simple rules would have said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..validation.report import Table

#: Reasons that are printed for rows that are not predicted; --json has all.
_SHOWN = 12


def validate(
    csv: Annotated[
        Path | None, typer.Argument(help="Published rows, with the columns of data/published.csv.", show_default="ours")
    ] = None,
    cross: Annotated[
        bool, typer.Option("--cross/--no-cross", help="Also fit without each source, and predict that source.")
    ] = True,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the parameters to these rows first, instead of using ours.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Fail where a row cannot be expressed.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
    ] = False,
    markdown: Annotated[bool, typer.Option(help="Print the tables as Markdown, as in docs/validation.md.")] = False,
) -> None:
    """Run every model on published measured rows with one parameter set, and print how far off each group is."""
    from ..models.transformer import PARAMETERS
    from ..validation import report
    from ..validation import rows as published
    from ..validation.validate import fit_parameters, fitted_ids
    from ..validation.validate import validate as run
    from . import show

    ours = published.read(published.shipped())
    rows = ours if csv is None else published.read(csv)
    seen = fitted_ids(rows if fit else ours)
    found = run(rows, fit_parameters(rows) if fit else PARAMETERS, cross=cross, fitted_on=seen)
    if json_:
        show.as_json(found.record())
    elif markdown:
        print(report.markdown(found))
    else:
        reasons = report.left_out(found)
        _print(report.groups(found), report.pools(found), report.rules(found))
        if fit:
            _print(report.parameters(found))
        if reasons.rows:
            _print(report.Table(reasons.columns, reasons.rows[:_SHOWN], reasons.left))
        if len(reasons.rows) > _SHOWN:
            show.console().print(f"and {len(reasons.rows) - _SHOWN} other reasons; --json has them all")
    left = [r for r in found.results if r.error is None]
    if strict and left:
        print(
            f"aiinfra: {len(left)} row{'s' if len(left) > 1 else ''} not predicted; the first: {left[0].reason}",
            file=sys.stderr,
        )
        raise typer.Exit(2)


def _print(*tables: Table) -> None:
    from rich.markup import escape

    from . import show

    for table in tables:
        if not table.rows:
            continue
        shown = show.new_table()
        for n, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if n < table.left else "right", overflow="fold")
        for cells in table.rows:
            shown.add_row(*(escape(c) for c in cells))
        show.console().print(shown)
        print()
