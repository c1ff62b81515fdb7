"""The plan search of the scale-out lab: every plan on the chosen accelerators, the quickest that fit, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ..planning.offers import Choice, Offer
from ..planning.plans import PlanSpace
from ..planning.search import search
from ..quantities import show
from ..texts import N_, told, tr
from .scale_out_fields import MY_RUN, ScaleOutFields, setup
from .scale_out_figures import spaced
from .scale_out_table import duration, money, percent

#: Plans that differ in these are different answers; of those that are alike in them only the quickest is shown.
TOLD_APART = ("tp_size", "pp_size")
SHOWN = 5
HEAD = (
    N_("Plan"), N_("Accelerators"), N_("How"), N_("Step"), N_("Utilisation"), N_("Time"), N_("Cost"), N_("Memory"),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a search found, quickest first.

    Attributes:
        choices: Plans that fit, at most SHOWN.
        num_plans, num_feasible: Considered, and within memory.
        says: What binds, or why no plan is left.
    """

    choices: tuple[Choice, ...]
    num_plans: int
    num_feasible: int
    says: tuple[str, ...]


def find(f: ScaleOutFields) -> Found:
    """Search all plans of the fields' model on their number of accelerators, batch and precision.

    Raises:
        ModelInputError: A measured run, which has no plan; too few accelerators for a node; not one valid plan.
    """
    if f.model == MY_RUN:
        raise ModelInputError("a measured run has no parallel plan to search for; choose a model of the catalog")
    s = setup(f)
    per_node = int(s.cluster.per_node)
    nodes = f.accelerators // per_node
    if nodes < 1:
        raise ModelInputError(
            f"{f.accelerators} accelerators do not fill one {f.node} of {per_node}; choose more, or another machine"
        )
    c = s.conditions
    offer = Offer(
        f.node, s.cluster, node_counts(nodes), per_node * c.price_usd_per_accelerator_hour, c.idle_w, c.rated_w, per_node * c.host_w, f.pue,
        c.carbon_intensity_gco2e_per_kwh, per_node * c.embodied_gco2e_per_accelerator, c.lifetime_s, f.precision,
    )  # fmt: skip
    space = PlanSpace(sequence_parallel=(True,), schedules=("1f1b", "interleaved"))
    result = search(s.model, offer, f.global_batch, tokens=f.tokens, space=space)
    rows = np.flatnonzero(result.table["feasible"])
    rows = rows[np.argsort(result.table["time_s"][rows], kind="stable")]
    choices: dict[Any, Choice] = {}
    for row in rows[:2000]:
        choice = result.choice(int(row))
        choices.setdefault(tuple(getattr(choice.plan, n) for n in TOLD_APART), choice)
        if len(choices) == SHOWN:
            break
    says = [str(b) for b in result.binding.get("time_s", ())] or ([str(result.dead_end)] if result.dead_end else [])
    return Found(tuple(choices.values()), result.num_plans, result.num_feasible, tuple(says))


def node_counts(most: int) -> list[int]:
    """Return `most`, and round numbers from half of it that models and batches can be spread on: 1, 3, 7, 9 times a power of two."""
    round_ = {m << k for m in (1, 3, 7, 9) for k in range(most.bit_length())}
    return sorted({most} | {n for n in round_ if most / 2 <= n <= most})


def fields_of(choice: Choice) -> dict[str, Any]:
    """Return the fields that a plan sets."""
    p = choice.plan
    return {
        "scaling": "strong", "tp_size": int(p.tp_size), "pp_size": int(p.pp_size), "cp_size": int(p.cp_size),
        "micro_batch_size": int(p.micro_batch_size), "interleave": int(p.interleave), "zero_stage": int(p.zero_stage),
        "recompute": str(p.recompute), "accelerators": int(p.world_size),
    }  # fmt: skip


def found_html(found: Found) -> str:
    """Return how many plans there were, what binds, and the head of the table."""
    said = "".join(f'<p class="aiinfra-note">{escape(_sentence(told(s)))}</p>' for s in found.says)
    count = tr(
        "{plans:,} plans tried, {fit:,} fit into memory. All numbers are modelled; failures are left out.",
        plans=found.num_plans, fit=found.num_feasible,
    )  # fmt: skip
    return f'<p class="aiinfra-note">{escape(count)}</p>{said}'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + tr(".")


def choice_html(choice: Choice) -> str:
    """Return one plan in words, with what it would take, for the screen."""
    on, more = _words(choice)
    numbers = " ".join(f"<span>{n}</span>" for n in _numbers(choice))
    return f'<div class="aiinfra-spec"><span>{_degrees(choice)}</span> <span>{on}; {more}</span> {numbers}</div>'


def choices_html(found: Found) -> str:
    """Return the plans as a table, for a report."""
    head = "".join(f"<th>{escape(tr(t))}</th>" for t in HEAD)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in (_degrees(c), *_words(c), *_numbers(c))) + "</tr>"
        for c in found.choices
    )
    return f'<table class="aiinfra-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _degrees(choice: Choice) -> str:
    p = choice.plan
    sizes = (("dp", p.dp_size), ("tp", p.tp_size), ("pp", p.pp_size), ("cp", p.cp_size))
    return " × ".join(f"{name} <b>{int(size)}</b>" for name, size in sizes if name != "cp" or size > 1)


def _words(choice: Choice) -> tuple[str, str]:
    p = choice.plan
    more = tr(
        "micro-batch {size}, interleave {pieces}, ZeRO {stage}, recompute {what}",
        size=int(p.micro_batch_size), pieces=int(p.interleave), stage=int(p.zero_stage), what=p.recompute,
    )  # fmt: skip
    return escape(tr("on {count}", count=spaced(p.world_size))), escape(more)


def _numbers(choice: Choice) -> tuple[str, ...]:
    return (
        tr("<b>{time}</b> a step", time=show("s", choice.step_time_s)),
        tr("{share} of peak", share=percent(choice.mfu)),
        duration(choice.time_s),
        money(choice.cost_usd) if choice.cost_usd is not None else tr("cost not known"),
        tr("{memory} each", memory=show("B", choice.memory_bytes)),
    )
