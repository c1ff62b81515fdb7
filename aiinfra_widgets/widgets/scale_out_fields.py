"""What may be asked of the scale-out lab, and what stands behind it: model, plan, machine, conditions, each with its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import ClassVar

from ..errors import LabError
from ..machine import catalog
from ..models.reliability import component_mtbf_s
from ..models.transformer.architecture import Transformer
from ..models.transformer.cluster import Cluster
from ..models.transformer.plan import RECOMPUTE, Plan
from ..planning import architectures, hardware
from ..planning.offers import HOST_FRAC, IDLE_FRAC
from ..planning.plans import USUAL
from ..planning.scale import DAY_S, Conditions
from ..spec import Fields, knob
from ..texts import N_

YEAR_S = 365 * DAY_S
HOUR_S = 3600.0
#: Choice of `model` for the last training run of this machine.
MY_RUN = "my last training run"
MODELS = (*architectures.names(architectures.TRANSFORMER), MY_RUN)
NODES = tuple(catalog.keys("nodes"))
GRIDS = tuple(sorted({e.extra["name"] for e in catalog.load("grids") if e.extra.get("name")}))
PRECISIONS = ("bf16", "fp8", "fp16", "fp32")
SCALINGS = ("strong", "weak")
MOST = 131_072
#: 419 unexpected interruptions in 54 days on 16 384 accelerators: Llama 3 (arXiv:2407.21783), table 5 and its text.
MTBF_S = float(component_mtbf_s(419, 16_384, 54 * DAY_S))
LIFETIME_S = 4 * YEAR_S


class ScaleOutFields(Fields):
    """One plan for one model on one machine, and the conditions that it runs under."""

    noun: ClassVar[str] = "field"

    model: str = knob(
        "llama-3.1-405b",
        "What is trained: from the catalog, or what you measured in lab 1.",
        label="Model",
        choices=MODELS,
    )
    node: str = knob("dgx-h100", "The kind of node, with its usual fabric.", label="Machine", choices=NODES)
    accelerators: int = knob(
        16_384,
        "How many there are; whole replicas of the model are put on them.",
        label="Accelerators",
        ge=8,
        le=MOST,
        log=True,
    )
    tp_size: int = knob(
        8,
        "Ranks that share every matrix; they sum up inside every layer.",
        label="Tensor parallel",
        ge=1,
        le=64,
        log=True,
    )
    pp_size: int = knob(
        16, "Stages that a batch passes one after another.", label="Pipeline stages", ge=1, le=64, log=True
    )
    scaling: str = knob(
        "strong",
        "strong: the batch stays as it is; weak: it grows with the accelerators.",
        label="Scaling",
        choices=SCALINGS,
        group="Plan",
    )
    global_batch: int = knob(
        2048,
        "Sequences per step, where the batch stays as it is.",
        label="Global batch",
        ge=1,
        le=65_536,
        log=True,
        group="Plan",
    )
    num_microbatches: int = knob(
        16,
        "Micro-batches of a replica in a step, where the batch grows.",
        label="Micro-batches",
        ge=1,
        le=1024,
        log=True,
        group="Plan",
    )
    micro_batch_size: int = knob(
        1, "Sequences that a replica takes at once.", label="Micro-batch", ge=1, le=64, log=True, group="Plan"
    )
    cp_size: int = knob(
        1, "Ranks that share every sequence.", label="Context parallel", ge=1, le=64, log=True, group="Plan"
    )
    interleave: int = knob(
        4,
        "Pieces of the model in each stage: less bubble, more messages.",
        label="Interleave",
        ge=1,
        le=128,
        log=True,
        group="Plan",
    )
    zero_stage: int = knob(
        1,
        "What the replicas share out: 1 optimiser state, 2 also gradients, 3 also weights.",
        label="ZeRO stage",
        ge=0,
        le=3,
        group="Plan",
    )
    recompute: str = knob(
        "selective",
        "What the backward pass computes again to save memory.",
        label="Recompute",
        choices=RECOMPUTE,
        group="Plan",
    )
    precision: str = knob("bf16", "Format of the matrix products.", label="Precision", choices=PRECISIONS, group="Plan")
    seq_len: int = knob(8192, "Tokens of a sequence.", label="Sequence", ge=128, le=131_072, log=True, group="Job")
    tokens: float = knob(15.6e12, "To train on, in all.", label="Tokens", ge=1e9, le=1e14, log=True, group="Job")
    mtbf_years: float = knob(
        5.8, "Mean time between failures of one accelerator with its share of the rest. 5.8 years: Llama 3, 419 in 54 days on 16 384.",
        label="One fails every", unit="years", ge=0.1, le=100, log=True, group="Failures",
    )  # fmt: skip
    checkpoint_cost_s: float = knob(
        10.0,
        "Time that a checkpoint stops the job.",
        label="Checkpoint",
        unit="s",
        ge=0.1,
        le=3600,
        log=True,
        group="Failures",
    )
    restart_time_s: float = knob(
        300.0,
        "From a failure until steps go on.",
        label="Restart",
        unit="s",
        ge=0,
        le=36_000,
        log=True,
        group="Failures",
    )
    price_usd_per_hour: float = knob(
        0.0, "Rent of one accelerator in dollars per hour; 0 takes the catalog's median on demand.", label="Price", unit="USD",
        ge=0, le=100, group="Money, energy, carbon",
    )  # fmt: skip
    grid: str = knob("United States", "Whose electricity.", label="Grid", choices=GRIDS, group="Money, energy, carbon")
    pue: float = knob(
        1.1,
        "Energy of the building over energy of the computers.",
        label="PUE",
        ge=1,
        le=3,
        step=0.01,
        group="Money, energy, carbon",
    )
    embodied_kg: float = knob(
        500.0, "CO2e of making one accelerator and its share of the node.", label="Made for", unit="kg", ge=0, le=10_000, log=True,
        group="Money, energy, carbon",
    )  # fmt: skip


#: Shown unfolded: what, where, and three sliders.
FIRST = ("model", "node", "accelerators", "tp_size", "pp_size")


@dataclass(frozen=True)
class Setup:
    """What the fields stand for."""

    model: Transformer
    plan: Plan
    cluster: Cluster
    accelerator: str
    conditions: Conditions


def setup(f: ScaleOutFields) -> Setup:
    """Return model, plan, machine and conditions of the fields.

    Raises:
        UnknownNameError, CatalogError: A number that the catalogs lack.
        ModelInputError: A plan that is none.
    """
    model, cluster = _model(f.model, f.seq_len), _cluster(f.node, f.precision)
    per_replica = f.num_microbatches if f.scaling == "weak" else -(-f.global_batch // f.micro_batch_size)
    plan = replace(
        USUAL, tp_size=f.tp_size, pp_size=f.pp_size, cp_size=f.cp_size, micro_batch_size=f.micro_batch_size,
        global_batch_size=per_replica * f.micro_batch_size, interleave=f.interleave,
        schedule="interleaved" if f.interleave > 1 else "1f1b", zero_stage=f.zero_stage, sequence_parallel=f.tp_size > 1,
        recompute=f.recompute, precision=f.precision,
    )  # fmt: skip
    return Setup(model, plan, cluster, accelerator_of(f.node), conditions(f))


def conditions(f: ScaleOutFields) -> Conditions:
    """Return failures, prices, power and grid of the fields, each with its source."""
    accelerator = accelerator_of(f.node)
    rated_w, rated_how = _rated(accelerator)
    price, price_how = (f.price_usd_per_hour, N_("your price")) if f.price_usd_per_hour else _price(accelerator)
    carbon_gco2e_per_kwh, grid_how = _grid(f.grid)
    return Conditions(
        mtbf_s=f.mtbf_years * YEAR_S,
        checkpoint_cost_s=f.checkpoint_cost_s,
        restart_time_s=f.restart_time_s,
        price_usd_per_accelerator_hour=price,
        idle_w=IDLE_FRAC * rated_w,
        rated_w=rated_w,
        host_w=HOST_FRAC * rated_w,
        pue=f.pue,
        carbon_intensity_gco2e_per_kwh=carbon_gco2e_per_kwh,
        embodied_gco2e_per_accelerator=1000 * f.embodied_kg,
        lifetime_s=LIFETIME_S,
        sources={
            N_("Failures"): N_(f"one accelerator fails every {f.mtbf_years:g} years (Llama 3, 2024: 419 in 54 days on 16 384 give 5.8)"),
            N_("Checkpoints"): N_(
                f"each stops all for {f.checkpoint_cost_s:g} s, a restart takes {f.restart_time_s:g} s; at the best interval"
            ),
            N_("Price"): N_(f"${price:.2f} per accelerator and hour: {price_how}"),
            N_("Power"): N_(f"{rated_how}; idle {IDLE_FRAC:.0%} of it, {HOST_FRAC:.0%} of it for the rest of the node; PUE {f.pue:g}"),
            N_("Grid"): grid_how,
            N_("Manufacture"): N_(f"{f.embodied_kg:g} kgCO2e per accelerator over {LIFETIME_S / YEAR_S:.0f} years"),
        },
    )  # fmt: skip


def accelerator_of(node: str) -> str:
    """Return the key of a node's accelerator."""
    return catalog.text("nodes", node, "accelerator")


def peak_flops(name: str, precision: str) -> float | None:
    """Return the dense peak of a device as a publication calls it, or None where the catalog does not know."""
    try:
        return hardware.peak(name, precision).value
    except LabError:
        return None


@cache
def _model(name: str, seq_len: int) -> Transformer:
    return architectures.transformer(name, seq_len)


@cache
def _cluster(node: str, precision: str) -> Cluster:
    return hardware.cluster(node, precision)


@cache
def _rated(accelerator: str) -> tuple[float, str]:
    rows = catalog.item("accelerators", accelerator)
    if "power_max_w" in rows:
        return rows["power_max_w"].value, N_(f"{rows['power_max_w'].value:g} W at most per accelerator (data sheet)")
    return 500.0, N_("500 W at most per accelerator (assumed: the catalog has none)")


@cache
def _grid(name: str) -> tuple[float, str]:
    found = catalog.grid(name)
    value = found.carbon_intensity_gco2e_per_kwh
    return value, N_(f"{value:.0f} gCO2e/kWh, {found.name}, average of {found.year}")


@cache
def _price(accelerator: str) -> tuple[float, str]:
    """Return the median price on demand of one accelerator."""
    family = accelerator.split("-")[0].upper()
    memory = accelerator.rsplit("-", 1)[-1].upper()
    found = [
        e.value / int(e.extra["accelerator_count"])
        for e in catalog.load("prices")
        if e.field.startswith("on_demand")
        and e.extra.get("accelerator_count", "0") not in {"", "0"}
        and e.extra["accelerator"].upper() in {family, f"{family}-{memory}"}
    ]
    if found:
        return median(found), N_(f"median of {len(found)} on demand in the catalog")
    return 2.5, N_("assumed: the catalog has none")
