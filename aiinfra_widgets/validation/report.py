"""A validation as tables of text: the same lines for the terminal and for docs/validation.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..models.transformer import Parameters
from .validate import Group, Validation

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


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text; `left` is how many columns hold words (the others hold numbers)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def markdown(self) -> Iterator[str]:
        """Yield its lines."""
        rule = ["---" if n < self.left else "---:" for n in range(len(self.columns))]
        for cells in (self.columns, rule, *self.rows):
            yield "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def groups(found: Validation) -> Table:
    """Return a line per source, table and metric that has a predicted row."""
    rows = [_group(g) for g in found.groups if g.expressed]
    return Table(("source", "metric", "worst row", "rows", "predicted", "error", "median", "bias"), rows, left=3)


def _group(g: Group) -> tuple[str, ...]:
    # A group's name without the place where it can be read: that is in the file.
    source = g.source.split(", arXiv")[0].removesuffix(" performance tables").removesuffix(" performance summary")
    worst = f"{g.worst} {g.worst_error:+.0f} %"
    name = f"{source}, {g.table}" if g.table and len(g.table) < 24 else source
    return (
        name,
        g.metric,
        worst,
        str(g.rows),
        str(g.expressed),
        f"{g.mape:.1f} %",
        f"{g.median:.1f} %",
        f"{g.bias:+.1f} %",
    )


def pools(found: Validation) -> Table:
    """Return a line per pool."""
    crossed = found.cross_validated()
    held = {n: f"{f['mape']:.1f} % ({f['rows']} rows)" for n, f in crossed.items()}
    rows = [
        (POOL_WORDS[n], n, str(f["rows"]), f"{f['mape']:.1f} %", held.get(n, "")) for n, f in found.pooled().items()
    ]
    return Table(("what", "pool", "rows", "error", "left out of the fit"), rows, left=2)


def rules(found: Validation) -> Table:
    """Return these models beside the simple rules, on the same rows of training steps."""
    rows = []
    crossed, steps = found.cross_validated().get("iteration_time"), found.steps()
    if steps:
        held = f"{crossed['mape']:.1f} %" if crossed else "not asked for"
        rows.append(("these models, one parameter set", str(steps["rows"]), f"{steps['mape']:.1f} %", held))
    for b in found.baselines:
        held = "" if b.held_out_mape is None else f"{b.held_out_mape:.1f} %"
        rows.append((b.name, str(b.rows), f"{b.mape:.1f} %", held))
    return Table(("transformers' training steps", "rows", "error", "each source without its own rows"), rows)


def left_out(found: Validation) -> Table:
    """Return why rows are not predicted, the commonest reason first."""
    reasons: dict[str, list[str]] = {}
    for r in found.results:
        if r.error is None:
            reasons.setdefault(r.reason.split(": ", 1)[-1], []).append(r.row.where)
    rows = [
        (reason, places[0] + (" ..." if len(places) > 1 else ""), str(len(places)))
        for reason, places in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    return Table(("why not", "first at", "rows"), rows, left=2)


def parameters(found: Validation) -> Table:
    """Return every parameter with its bounds and what the literature expects."""
    facts, fitted = Parameters.facts(), Parameters.fitted()
    rows = []
    for name, fact in facts.items():
        expected = f"{fact['expected']:g} ± {fact['spread']:g}" if name in fitted else "taken as it is"
        value = f"{getattr(found.parameters, name):.3g}"
        rows.append((f"`{name}`", str(fact["meaning"]), value, expected, f"{fact['low']:g} to {fact['high']:g}"))
    return Table(("parameter", "meaning", "value", "expected", "bounds"), rows, left=2)


def markdown(found: Validation) -> str:
    """Return all tables as Markdown."""
    parts = {
        "Pooled": pools(found),
        "Beside simple rules": rules(found),
        "By source": groups(found),
        "Not predicted": left_out(found),
        "The parameters": parameters(found),
    }
    lines = []
    for title, table in parts.items():
        lines += [f"### {title}", "", *table.markdown(), ""]
    return "\n".join(lines)
