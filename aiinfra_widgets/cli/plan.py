"""`aiinfra plan`: the best plans of a training job under limits, the Pareto front, and what binds. All of it modelled."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpecError

if TYPE_CHECKING:
    from ..models.transformer.plan import Plan
    from ..planning.offers import Choice, Limits, Offer
    from ..planning.search import SearchResult

_BEST = {"time_s": "quickest", "cost_usd": "cheapest", "carbon_gco2e": "least carbon"}
#: Rows of the front that are printed; --json has all.
_SHOWN = 12


def plan(
    model: Annotated[str, typer.Option(help="A transformer of the catalog, as llama-3-70b.")],
    node: Annotated[str, typer.Option(help="A node of the catalog, as dgx-h100.")],
    nodes: Annotated[
        str, typer.Option(help='At most so many, halves tried as well ("64"); or exactly these ("48,64").')
    ],
    batch: Annotated[int, typer.Option(help="Sequences per step.")],
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train, instead of tokens.")] = None,
    seq_len: Annotated[int, typer.Option(help="Tokens per sequence.")] = 4096,
    precision: Annotated[str, typer.Option(help="Of the matrix products.")] = "bf16",
    deadline: Annotated[str | None, typer.Option(help="For the whole job: 30d, 12h, or seconds.")] = None,
    budget: Annotated[float | None, typer.Option(help="For the whole job, in USD.")] = None,
    carbon: Annotated[str | None, typer.Option(help='For the whole job: "50 t", or grams of CO2e.')] = None,
    memory: Annotated[
        str | None, typer.Option(help='Of one device, instead of what it has: "70 GiB", or bytes.')
    ] = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(help="provider/region/instance of the catalog; repeatable. Default: all that suit."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="on_demand or spot; repeatable.", show_default="on_demand")
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Your own price, USD per node and hour, instead of the catalog's.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Region of the grid, as FRA; default: where the instance is.")
    ] = None,
    pue: Annotated[
        float | None, typer.Option(help="Energy of the building over energy of the computers; default: the provider's.")
    ] = None,
    tp_across_nodes: Annotated[bool, typer.Option(help="Tensor parallelism may leave the node.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
    ] = False,
) -> None:
    """Find the best plans of a training job under limits, and say what binds. All numbers are modelled, none is measured."""
    from ..planning.architectures import transformer
    from ..planning.plans import PlanSpace
    from ..planning.search import search
    from . import DONE, FAILED, show

    limits = _limits(memory, deadline, budget, carbon)
    offers = _offers(node, nodes, price, instance, kind, precision=precision, grid=grid, pue=pue)
    space = PlanSpace(tp_across_nodes=tp_across_nodes)
    found = search(transformer(model, seq_len), offers, batch, tokens=tokens, steps=steps, limits=limits, space=space)
    if json_:
        show.as_json(as_data(found, limits))
    else:
        print(
            f"# {model}, {seq_len} tokens a sequence, {batch} sequences a step, {found.steps:,} steps, on {nodes} x {node}"
        )
        _print(found, offers)
    raise typer.Exit(DONE if found.best else FAILED)


def _limits(memory: str | None, deadline: str | None, budget: float | None, carbon: str | None) -> Limits:
    from ..planning.offers import Limits

    return Limits(
        None if memory is None else _amount("memory", memory, "byte"),
        math.inf if deadline is None else _amount("deadline", deadline, "second"),
        math.inf if budget is None else budget,
        math.inf if carbon is None else _amount("carbon", carbon, "gram"),
    )


def _offers(
    node: str, nodes: str, price: float | None, instances: list[str] | None, kinds: list[str] | None, **asked: Any
) -> list[Offer]:
    """Return the catalog's offers, or the one at the caller's own price.

    Raises:
        SpecError: A price of one's own beside names of the catalog.
    """
    from ..planning.offers import owned, rented

    if price is None:
        return rented(node, _counts(nodes), instances=instances or (), kinds=kinds or ("on_demand",), **asked)
    if instances or kinds:
        raise SpecError(
            f"price: got {price:g} beside --instance or --kind, which take the catalog's price; give one of the two"
        )
    return [owned(node, _counts(nodes), price, **asked)]


def as_data(found: SearchResult, limits: Limits) -> dict[str, Any]:
    """Return a search's result as plain JSON types.

    Args:
        found: The result.
        limits: That it kept.
    """
    dead = found.dead_end
    return {
        "method": "modelled",
        "steps": found.steps,
        "limits": {k: None if v in (None, math.inf) else v for k, v in asdict(limits).items()},
        "notes": list(found.notes),
        "assumed": _assumed(found.offers),
        "num_layouts": found.num_layouts,
        "num_plans": found.num_plans,
        "num_near_memory": len(found.table["time_s"]),
        "num_feasible": found.num_feasible,
        "best": {o: _choice(found.choice(row)) for o, row in found.best.items()},
        "front": [_choice(found.choice(row)) for row in found.front],
        "binding": {o: [asdict(b) | {"words": str(b)} for b in bs] for o, bs in found.binding.items()},
        "dead_end": None
        if dead is None
        else asdict(dead) | {"words": str(dead), "plan": _choice(found.choice(dead.nearest))},
    }


def _choice(choice: Choice) -> dict[str, Any]:
    numbers = {k: getattr(choice, k) for k in choice.__slots__ if k not in {"plan", "offer"}}
    return {"offer": choice.offer.name, **numbers, "plan": asdict(choice.plan)}


def _print(found: SearchResult, offers: list[Offer]) -> None:
    """Print the best plans, the front and what binds, as tables and sentences for a person."""
    from rich.console import Console

    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    several = (
        f" ({found.num_layouts:,} ways to spread the job, times the offers)"
        if found.num_layouts < found.num_plans
        else ""
    )
    counts = f"{found.num_plans:,} plans modelled{several}, {found.num_feasible:,} within the limits"
    if found.dead_end:
        out.print(f"{counts}\n{found.why('time_s')[0]}", highlight=False, soft_wrap=True)
        out.print(
            "the nearest miss, modelled: " + _line(found.choice(found.dead_end.nearest)),
            highlight=False,
            soft_wrap=True,
        )
    else:
        front = _spread(found.front)
        out.print(f"{counts}.\n\nthe best by each objective:", highlight=False, soft_wrap=True)
        out.print(_table([(_BEST[o], found.choice(row)) for o, row in found.best.items()]))
        out.print(f"\nthe Pareto front, {len(front)} of its {len(found.front)} plans:", highlight=False)
        out.print(_table([("", found.choice(row)) for row in front]))
        out.print("\nwhat binds:", highlight=False)
        for objective in found.best:
            for told in found.why(objective):
                out.print(f"  {_BEST[objective]}: {told}", highlight=False, soft_wrap=True)
    for note in found.notes:
        out.print(f"\n{note}", highlight=False, soft_wrap=True)
    out.print("\nassumed: " + "; ".join(_assumed(offers)), highlight=False, soft_wrap=True)
    out.print(
        "All numbers are modelled, none is measured: no failures, checkpoints or waiting in a queue.", highlight=False
    )


def _table(rows: list[tuple[str, Choice]]) -> Any:
    from rich.table import Column, Table

    from ..planning.binding import said

    table = Table("", "time", "cost", "carbon", "nodes", "step", "MFU", "memory", Column("where", no_wrap=True), "plan")
    table.box, table.pad_edge, table.header_style = None, False, "bold"
    for label, c in rows:
        numbers = [said(n, getattr(c, n)) for n in ("time_s", "cost_usd", "carbon_gco2e")]
        fit = [
            str(c.num_nodes),
            said("step_time_s", c.step_time_s),
            f"{c.mfu:.0%}",
            said("memory_bytes", c.memory_bytes),
        ]
        table.add_row(label, *numbers, *fit, c.offer.name.removesuffix(" on_demand"), _short(c.plan))
    return table


def _line(c: Choice) -> str:
    from ..planning.binding import said

    parts = [f"{said('time_s', c.time_s)}, {said('cost_usd', c.cost_usd)}, {said('carbon_gco2e', c.carbon_gco2e)}"]
    return ", ".join(
        [
            *parts,
            said("memory_bytes", c.memory_bytes),
            f"{c.num_nodes} node{'s' * (c.num_nodes > 1)}",
            c.offer.name,
            _short(c.plan),
        ]
    )


def _short(p: Plan) -> str:
    """Return a plan in a few words: the degrees, and what is not the simplest choice."""
    degrees = [
        f"{k}{getattr(p, k + '_size')}"
        for k in ("dp", "tp", "pp", "cp", "ep")
        if getattr(p, k + "_size") > 1 or k == "dp"
    ]
    chunks = f" x{p.interleave}" if p.interleave > 1 else ""
    words = [f"{p.schedule}{chunks}"] if p.pp_size > 1 else []
    words += ["sp"] if p.sequence_parallel else []
    words += [f"zero{p.zero_stage}"] if p.zero_stage else []
    words += [f"recompute {p.recompute}"] if p.recompute != "none" else []
    return " ".join([*degrees, f"mb{p.micro_batch_size}", *words])


def _spread(front: Any) -> list[int]:
    """Return at most _SHOWN rows of the front, evenly picked, first and last among them."""
    if len(front) <= _SHOWN:
        return [int(row) for row in front]
    return [int(front[round(i * (len(front) - 1) / (_SHOWN - 1))]) for i in range(_SHOWN)]


def _assumed(offers: Any) -> list[str]:
    """Return what nobody measured and no catalog says."""
    first = offers[0]
    pues = ", ".join(sorted({f"{o.pue:g}" for o in offers}))
    told = [f"PUE {pues}", "every provider's network as the node's in the catalog", "manufacture's carbon not counted"]
    if first.metered:
        told.insert(
            0,
            f"a device idles at {first.idle_w:.0f} W of {first.rated_w:.0f} W, the rest of a node draws {first.host_w_per_node:,.0f} W",
        )
    if any("spot" in o.name for o in offers):
        told.append("spot nodes are never taken away")
    return told


def _counts(text: str) -> list[int]:
    """Read "64" as 64, 32, 16 ... and "48,64" as these.

    Raises:
        SpecError: Not whole numbers from 1.
    """
    words = text.split(",")
    if not all(w.strip().isdecimal() and int(w) > 0 for w in words):
        raise SpecError(f"nodes: got {text!r}; give a whole number from 1, or several with commas: 48,64")
    counts = [int(w) for w in words]
    while len(words) == 1 and counts[-1] % 2 == 0:
        counts.append(counts[-1] // 2)
    return counts


def _amount(name: str, text: str, unit: str) -> float:
    """Read a number in base units, or one with a unit.

    Raises:
        SpecError: Neither, or another kind of unit.
    """
    try:
        return float(text)
    except ValueError:
        import pint

        try:
            return float(pint.Quantity(text).to(unit).magnitude)
        except Exception as error:
            example = {"second": "30d", "gram": "50 t", "byte": "80 GiB"}[unit]
            raise SpecError(
                f"{name}: cannot read {text!r}; give a number of {unit}s, or one with a unit: {example}"
            ) from error
