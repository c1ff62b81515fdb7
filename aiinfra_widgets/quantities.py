"""The vocabulary: every quantity that may be predicted or measured, defined once.

Because a prediction and a measurement use the same names, comparing and drawing them needs no code per experiment.
Names carry their unit as a suffix and hold SI base units; only `show` converts, for a person's eyes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal

from .errors import UnknownNameError, near
from .texts import ENGLISH, N_, language, tr

Shape = Literal["number", "distribution", "curve", "series", "intervals"]
Method = Literal["measured", "modelled", "assumed", "published"]
#: The words for where a number comes from.
METHODS = (N_("measured"), N_("modelled"), N_("assumed"), N_("published"))
Better = Literal["lower", "higher", "neither"]
#: How the values of several nodes in one tick become one: `max` is "the slowest node", `first` any node (all equal).
Combine = Literal["max", "mean", "sum", "first"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One entry of the vocabulary.

    Attributes:
        name: With its unit suffix (`step_time_s`).
        label: For axes and tables.
        unit: Of the stored number, SI base or a plain word.
        help: One sentence that explains the term to a learner.
        better: Which way is good.
        shape: What kind of value it holds.
        part: Key of the fixed colour of a part of a step (compute, communication, data, wait, bubble), or "".
        combine: How nodes combine within one tick.
    """

    name: str
    label: str
    unit: str
    help: str
    better: Better = "neither"
    shape: Shape = "number"
    part: str = ""
    combine: Combine = "mean"


@dataclass(frozen=True, slots=True)
class Value:
    """A number that says where it comes from. `value` None means "not known"; 0.0 is a real zero.

    Attributes:
        quantity: Name in the vocabulary.
        value: In base units; a float, or an array when a sweep was predicted.
        low, high: The band: a prediction's uncertainty, or the quartiles of what was measured.
        method: measured, modelled, assumed or published.
        how: One clause: the counter, the model, the source.
        n: Number of samples behind a measured value.
        interval: low and high are the 95 % confidence interval of this very value, not the spread of what was measured.
    """

    quantity: str
    value: Any
    low: Any = None
    high: Any = None
    method: Method = "modelled"
    how: str = ""
    n: int | None = None
    interval: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; arrays become lists."""
        data = asdict(self)
        for key in ("value", "low", "high"):
            if hasattr(data[key], "tolist"):
                data[key] = data[key].tolist()
            if isinstance(data[key], float) and not math.isfinite(data[key]):
                data[key] = None
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Value:
        """Read what `to_json` wrote; keys of a later release are ignored."""
        return cls(**{k: data[k] for k in cls.__dataclass_fields__ if k in data})


def _table(*rows: Quantity) -> dict[str, Quantity]:
    return {q.name: q for q in rows}


QUANTITIES: dict[str, Quantity] = _table(
    Quantity("step_time_s", "Step time", "s", "Wall time of one training step, from data to updated weights.", "lower"),
    Quantity("data_time_s", "Data", "s", "Fetching and slicing the batch.", "lower", part="data"),
    Quantity("compute_time_s", "Compute", "s", "Forward, backward and optimiser arithmetic on this node.", "lower", part="compute"),
    Quantity("comm_time_s", "Communication", "s", "Everything spent moving gradients, hidden or not.", "lower", part="communication"),
    Quantity(
        "exposed_comm_time_s", "Exposed communication", "s",
        "Communication that no computation hides.", "lower", part="communication",
    ),
    Quantity(
        "straggler_wait_time_s", "Waiting for the slowest", "s",
        "Time a node stands still until the last one arrives.", "lower", part="wait",
    ),
    Quantity("bubble_time_s", "Pipeline bubble", "s", "Time a pipeline stage has nothing to do.", "lower", part="bubble"),
    Quantity(
        "engine_time_s", "torch's engine", "s",
        "Arithmetic and communication of one of torch's own engines, which does not tell them apart.", "lower", part="compute",
    ),
    Quantity(
        "runtime_time_s", "Lab overhead", "s",
        "Control and sampling by the lab itself, between two ticks.", "lower", part="runtime",
    ),
    Quantity("mean_wait_s", "Waiting", "s", "Mean time in a queue, before anything is done.", "lower", part="wait"),
    Quantity("p95_wait_s", "95th percentile of waiting", "s", "Nineteen of twenty wait no longer than this.", "lower"),
    Quantity("utilization_frac", "Utilisation", "frac", "Share of the time that a node is busy.", "neither"),
    Quantity("injected_time_s", "Injected", "s", "Delay that you added on purpose.", "neither", part="injected"),
    Quantity("samples_per_s", "Throughput", "samples/s", "Training samples per second, the whole job.", "higher", combine="first"),
    Quantity("tokens_per_s", "Throughput", "tokens/s", "Tokens per second, the whole job.", "higher", combine="first"),
    Quantity("speedup", "Speed-up", "x", "Throughput relative to one node.", "higher", combine="first"),
    Quantity("efficiency_frac", "Scaling efficiency", "frac", "Speed-up divided by the number of nodes.", "higher", combine="first"),
    Quantity("loss", "Training loss", "1", "Mean loss over the global batch.", "lower", combine="first"),
    Quantity("accuracy_frac", "Held-out accuracy", "frac", "Share of held-out samples classified right.", "higher", combine="first"),
    Quantity(
        "auc_frac", "Area under the ROC curve", "frac",
        "How often a held-out positive sample scores above a negative one.", "higher", combine="first",
    ),
    Quantity("held_out_loss", "Held-out loss", "1", "Mean loss on data that training never saw.", "lower", combine="first"),
    Quantity("sent_bytes", "Bytes sent", "B", "Payload this node handed to the network in one step.", "lower", combine="sum"),
    Quantity("memory_bytes", "Memory", "B", "Resident memory of the node's process.", "lower", combine="max"),
    Quantity("parameters_bytes", "Weights", "B", "Storage of the weights that one node holds.", "lower", combine="max"),
    Quantity("gradients_bytes", "Gradients", "B", "Storage of the gradients that one node holds.", "lower", combine="max"),
    Quantity("optimizer_bytes", "Optimiser state", "B", "Storage of the optimiser's numbers on one node.", "lower", combine="max"),
    Quantity(
        "compression_bytes", "Kept errors", "B",
        "Storage of what compression left out and keeps for the next step.", "lower", combine="max",
    ),
    Quantity(
        "outer_bytes", "Outer step", "B",
        "Storage of DiLoCo's outer step: the last average, and its velocity.", "lower", combine="max",
    ),
    Quantity(
        "mirror_bytes", "Copies", "B",
        "Storage of the last copies of a node's own share of the state, and of its neighbour's.", "lower", combine="max",
    ),
    Quantity(
        "transient_bytes", "Gathered for a while", "B",
        "Most storage that a node holds for the length of one layer: gathered weights, whole gradients.", "lower", combine="max",
    ),
    Quantity("gpu_memory_bytes", "GPU memory", "B", "Peak memory allocated on the device.", "lower", combine="max"),
    Quantity("cpu_time_s", "Processor time", "s", "Processor seconds this node used in one step.", "lower", combine="sum"),
    Quantity("flop_per_step", "Work", "flop", "Arithmetic of one step, all nodes.", "neither", combine="first"),
    Quantity("achieved_flops", "Achieved rate", "flop/s", "Work per second, all nodes.", "higher", combine="first"),
    Quantity("power_avg_w", "Power", "W", "Mean power over the segment.", "lower", combine="sum"),
    Quantity("energy_j", "Energy", "J", "Energy of the segment.", "lower", combine="sum"),
    Quantity("energy_per_step_j", "Energy per step", "J", "Energy of one step, all nodes.", "lower", combine="sum"),
    Quantity("cost_usd", "Cost", "USD", "Price of the nodes for the time they were held.", "lower", combine="sum"),
    Quantity("cost_per_step_usd", "Cost per step", "USD", "Price of one step, all nodes.", "lower", combine="sum"),
    Quantity(
        "operational_gco2e", "Carbon", "gCO2e",
        "Emissions of the energy used, by the grid's yearly average.", "lower", combine="sum",
    ),
    Quantity(
        "resize_time_s", "Resize", "s",
        "Time from the decision to change the node count until training goes on.", "lower", combine="max",
    ),
    Quantity(
        "training_goodput_frac",
        "Goodput",
        "frac",
        "Share of the time that is useful work: no checkpoints, no restarts, no work that a failure undid.",
        "higher",
        part="compute",
        combine="first",
    ),
    Quantity("launch_time_s", "Launch", "s", "Time from asking for ranks until they are ready.", "lower", combine="max"),
)  # fmt: skip


def register(quantities: Iterable[Quantity]) -> None:
    """Add an experiment's own entries to the vocabulary.

    Raises:
        ValueError: A name that means something else already.
    """
    for q in quantities:
        if QUANTITIES.setdefault(q.name, q) != q:
            raise ValueError(
                f"quantity {q.name!r} is in the vocabulary already, with another meaning; choose another name"
            )


def quantity(name: str) -> Quantity:
    """Return the definition of `name`, with label and help in the reader's language.

    Raises:
        UnknownNameError: With the near matches.
    """
    try:
        return QUANTITIES[name] if language() == ENGLISH else _told(language(), QUANTITIES[name])
    except KeyError:
        raise UnknownNameError(f"no quantity {name!r} in the vocabulary; {near(name, QUANTITIES)}") from None


@cache
def _told(_: str, q: Quantity) -> Quantity:
    return replace(q, label=tr(q.label), help=tr(q.help))


_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_IEC = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def _scaled(value: float, steps: tuple[tuple[float, str], ...], suffix: str = "") -> str:
    size = abs(value)
    scale, prefix = next(((s, p) for s, p in steps if size >= s * 0.9995), steps[-1])
    return f"{value / scale:.3g} {prefix}{suffix}".rstrip()


def _dollars(value: float) -> str:
    """Two digits behind the point, two that count where it is less than a cent, a millionth of a dollar below that."""
    size = abs(value)
    if size >= 0.01 or size == 0:
        return f"${value:,.2f}"
    if size >= 1e-5:
        return f"${value:.{1 - math.floor(math.log10(size))}f}"
    return f"{value * 1e6:.2g} µ$"


def show(name_or_unit: str, value: float | None) -> str:
    """Return `value` for a person: three digits, a human unit, "not known" for None.

    Args:
        name_or_unit: A quantity's name, or a unit of the table below.
        value: In base units.

    Display rules: times in s to ns, capacity in binary bytes, rates decimal, fractions as percent.
    """
    unit = QUANTITIES[name_or_unit].unit if name_or_unit in QUANTITIES else name_or_unit
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return tr("not known")
    if math.isinf(value):
        return tr("unbounded")
    if unit == "s":
        if abs(value) >= 120:
            return f"{value / 60:.3g} min" if abs(value) < 7200 else f"{value / 3600:.3g} h"
        return "0 s" if value == 0 else _scaled(value, _TIME)
    if unit == "B":
        return _scaled(value, _IEC)
    if unit == "frac":
        return f"{value * 100:.3g} %"
    if unit in {"flop", "flop/s", "B/s"}:
        return _scaled(value, _SI, unit)
    if unit.endswith("/s"):  # 34.9k samples/s: a prefix belongs to a number, not to a word
        return f"{_scaled(value, _SI).replace(' ', '')} {unit}"
    if unit in {"J", "W", "gCO2e", "g"}:
        word = unit.replace("gCO2e", "g CO\u2082e")
        return f"0 {word}" if value == 0 else _scaled(value, _SI if abs(value) >= 1000 else _SMALL, word)
    if unit == "USD":
        return _dollars(value)
    word = "" if unit in {"1", ""} else "×" if unit == "x" else f" {unit}"
    return (f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}") + word


@dataclass(frozen=True, slots=True)
class Prediction:
    """What theory says of one Spec on one machine, before the run.

    Attributes:
        values: By quantity name. For a sweep each value holds an array of the broadcast shape.
        notes: Sentences a reader must see beside the numbers (more ranks than cores, outside calibration).
        model: Name and version of the model, kept with the run.
        machine_id: The machine profile that was used.
    """

    values: dict[str, Value]
    notes: tuple[str, ...] = ()
    model: str = ""
    machine_id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def get(self, name: str) -> Any:
        """Return the predicted number, or None where the model says nothing."""
        return self.values[name].value if name in self.values else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "model": self.model,
            "machine_id": self.machine_id,
            "notes": list(self.notes),
            "extra": self.extra,
            "values": {k: v.to_json() for k, v in self.values.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prediction:
        """Read what `to_json` wrote."""
        return cls(
            {k: Value.from_json(v) for k, v in data["values"].items()},
            tuple(data.get("notes", ())),
            data.get("model", ""),
            data.get("machine_id", ""),
            dict(data.get("extra", {})),
        )
