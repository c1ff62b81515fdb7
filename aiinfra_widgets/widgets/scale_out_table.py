"""The tables of the scale-out lab in pure HTML: what each number of accelerators costs, what was assumed, what was published."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from ..models.energy import JOULE_PER_KWH
from ..planning.nearest import PublishedRun
from ..planning.scale import DAY_S
from ..quantities import quantity, show
from ..texts import N_, told, tr
from .scale_out_figures import CHOSEN, spaced
from .scale_out_state import Picture

YEAR_DAYS = 365.25
DASH = '<span class="aiinfra-none">\u2013</span>'


def duration(value_s: float) -> str:
    """Return a long time as a person says it: `6.3 h`, `78 days`, `5.8 years`."""
    days = value_s / DAY_S
    if days < 2:
        return show("s", value_s)
    return (
        tr("{number:.3g} days", number=days)
        if days < 2 * YEAR_DAYS
        else tr("{number:.3g} years", number=days / YEAR_DAYS)
    )


def money(value_usd: float) -> str:
    """Return dollars: `$812`, `$1.2 M`, `$3.4 bn`."""
    for least, scale, unit in ((1e9, 1e9, "bn"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value_usd >= least:
            return f"${value_usd / scale:.3g} {unit}"
    return f"${value_usd:,.0f}" if value_usd >= 1 else f"${value_usd:.2g}"


def energy_mwh(value_j: float) -> str:
    """Return energy in MWh, as bills of a data centre do."""
    return _three(value_j / JOULE_PER_KWH / 1000)


def carbon_t(value_gco2e: float) -> str:
    """Return emissions in metric tons."""
    return _three(value_gco2e / 1e6)


def percent(value: float) -> str:
    """Return a share; what is next to nothing without digits that nobody reads."""
    return "< 0.1 %" if 0 < value < 0.001 else f"{value * 100:.3g} %"


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else spaced(float(f"{value:.3g}"))


ROWS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("step_time_s", lambda v: show("s", v)),
    ("exposed_comm_frac", percent),
    ("bubble_frac", percent),
    ("mfu", percent),
    ("gpu_memory_bytes", lambda v: show("B", v)),
    ("failures_per_day", lambda v: f"{v:.3g}"),
    ("training_goodput_frac", percent),
    ("train_time_s", duration),
    ("cost_usd", money),
    ("facility_energy_j", energy_mwh),
    ("operational_gco2e", carbon_t),
    ("embodied_gco2e", carbon_t),
)
LABELS = {
    "gpu_memory_bytes": N_("Memory of one"), "mfu": N_("Utilisation (MFU)"), "facility_energy_j": N_("Energy, MWh"),
    "operational_gco2e": N_("Carbon, tCO2e"), "embodied_gco2e": N_("Making, tCO2e"),
}  # fmt: skip


def counts_html(p: Picture) -> str:
    """Return the table: a column for each number of accelerators, a row for each quantity, and what it is worth."""
    bars = p.bars
    counts = [spaced(n) for n in bars.accelerators[:-1]]
    head = "".join(f'<th class="n">{c}</th>' for c in counts)
    head += f'<th class="n aiinfra-mine">{spaced(p.fields.accelerators)}<br><small>{escape(tr("your choice"))}</small></th><th></th>'
    rows = [_used_row(p)] if (bars.used != bars.accelerators).any() else []
    for name, say in ROWS:
        if name in bars.values:
            rows.append(_row(p, name, say))
    return (
        f'<table class="aiinfra-table aiinfra-counts"><caption>{escape(tr("The whole job on so many accelerators"))}</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _used_row(p: Picture) -> str:
    cells = [
        spaced(n) if n else f'<span class="aiinfra-none">{tr("needs<br>{count}", count=spaced(p.bars.least))}</span>'
        for n in p.bars.used
    ]
    return _cells(tr("At work"), tr("Whole replicas only, and no more than the batch feeds."), cells, "")


def _row(p: Picture, name: str, say: Callable[[float], str]) -> str:
    value, q = p.bars.values[name], quantity(name)
    cells = [DASH if math.isnan(v) else escape(say(float(v))) for v in value.value]
    if name == "gpu_memory_bytes" and p.memory_bytes:
        full = [not math.isnan(v) and v > p.memory_bytes for v in value.value]
        cells = [f'<span class="aiinfra-far">{c} ✕</span>' if no else c for c, no in zip(cells, full, strict=True)]
    tag = f'<span class="aiinfra-tag" title="{escape(told(value.how))}">{escape(tr(value.method))}</span>'
    return _cells(tr(LABELS[name]) if name in LABELS else q.label, q.help, cells, tag)


def _cells(label: str, help_: str, cells: Sequence[str], tag: str) -> str:
    mine = [f'<td class="n{" aiinfra-mine" if i == CHOSEN else ""}">{c}</td>' for i, c in enumerate(cells)]
    return f'<tr><th title="{escape(help_)}">{escape(label)}</th>{"".join(mine)}<td>{tag}</td></tr>'


def notes_html(p: Picture) -> str:
    """Return what a reader must know of the chosen plan: what does not fit, and the model's own notes."""
    said = [told(n) for n in p.bars.notes]
    if CHOSEN in p.bars.reasons:
        few = tr(
            "{count} accelerators are too few: {reason}.",
            count=spaced(p.fields.accelerators),
            reason=told(p.bars.reasons[CHOSEN]),
        )
        said.insert(0, few)
    elif p.memory_bytes and p.bars["gpu_memory_bytes"][CHOSEN] > p.memory_bytes:
        need, has = show("B", float(p.bars["gpu_memory_bytes"][CHOSEN])), show("B", p.memory_bytes)
        said.insert(
            0, tr(
                "Your plan does not fit: it needs {need} on an accelerator that has {has}. "
                "More tensor or pipeline parallelism, full recomputation or a higher ZeRO stage saves memory.",
                need=need, has=has,
            ),
        )  # fmt: skip
    return "".join(f'<p class="aiinfra-note">{escape(n)}</p>' for n in said)


def assumed_html(assumed: Mapping[str, str]) -> str:
    """Return the assumptions, each with where it comes from."""
    items = "".join(f"<li><b>{escape(tr(k))}</b> {escape(told(v))}</li>" for k, v in assumed.items())
    head = tr("Assumed, and yours to change under <b>More</b>:")
    return f'<p class="aiinfra-note">{head}</p><ul class="aiinfra-assumed">{items}</ul>'


def record_html(runs: Sequence[PublishedRun], missing: str = "") -> str:
    """Return the published runs nearest to the plan, nearest first, with their sources; or why there are none."""
    if not runs:
        text = told(missing) if missing else tr("Nothing published to compare with: choose a model of the catalog.")
        return f'<p class="aiinfra-empty">{escape(text)}</p>'
    titles = ((tr("Run"), ""), (tr("Accelerators"), "n"), (tr("Utilisation"), "n"), (tr("Source"), ""))
    head = "<tr>" + "".join(f'<th class="{css}">{escape(t)}</th>' for t, css in titles) + "</tr>"
    rows = "".join(_record_row(r) for r in runs)
    caption = f"<caption>{escape(tr('Nearest published runs, nearest first'))}</caption>"
    return f'<table class="aiinfra-table">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>'


def _record_row(r: PublishedRun) -> str:
    printed = f"{r.printed}, {r.metric}, {r.origin}"
    return (
        f'<tr><td>{escape(r.model)}</td><td class="n" title="{escape(r.accelerator)}">{spaced(r.accelerators)} × '
        f'{escape(_device(r.accelerator))}</td><td class="n" title="{escape(printed)}">{percent(r.mfu or 0)}</td>'
        f'<td class="aiinfra-source" title="{escape(r.place)}">{escape(r.source)}</td></tr>'
    )


def _device(name: str) -> str:
    return name.split(" (")[0].split("-")[0]


def reveal_html(p: Picture, guess: float | None) -> str:
    """Return the learner's number beside the model's, for the setup that was asked about."""
    value = float(p.bars["exposed_comm_frac"][CHOSEN])
    own = (
        f'<div class="aiinfra-big"><span>{escape(tr("You"))}</span> <b>{percent(guess)}</b></div>'
        if guess is not None
        else ""
    )
    model = escape(tr("Model"))
    if math.isnan(value):
        return f'{own}<div class="aiinfra-big"><span>{model}</span> <b class="aiinfra-none">{escape(tr("no answer: see below"))}</b></div>'
    bubble = float(p.bars["bubble_frac"][CHOSEN]) if "bubble_frac" in p.bars.values else 0.0
    where = escape(tr("on {count} accelerators", count=spaced(p.fields.accelerators)))
    share = escape(tr("{share} is bubble", share=percent(bubble)))
    more = f"<small>{where}; {share}</small>" if bubble else f"<small>{where}</small>"
    tag = f'<span class="aiinfra-tag">{escape(tr("modelled"))}</span>'
    return f'{own}<div class="aiinfra-big"><span>{model}</span> <b>{percent(value)}</b> {more} {tag}</div>'
