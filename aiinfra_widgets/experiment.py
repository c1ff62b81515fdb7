"""An experiment is a Spec, a prediction and a programme for the ranks, under one vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import UnknownNameError, near
from .faults import Fault
from .machine.profile import Machine
from .quantities import Prediction, Quantity, Value, register
from .spec import Fields, Knob, Spec, knob

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Companion", "Curve", "Experiment", "Fields", "Knob", "Observed", "Spec", "Timeline", "Verb", "experiment",
    "experiment_names", "knob",
]  # fmt: skip
GROUP = "aiinfra.experiments"


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be done *to* a run: `checkpoint`, `kill`, `submit`; `arguments` declares its values as knobs."""

    name: str
    help: str
    arguments: type[Fields] = Fields


#: What every experiment can do, because the runtime does it.
COMMON_VERBS = (
    Verb("pause", "Hold every node at the next boundary."),
    Verb("resume", "Go on after a pause."),
    Verb("checkpoint", "Write the state to disk at the next boundary."),
    Verb("stop", "Finish the tick, write a checkpoint and end."),
    Verb("fault", "Break something for real, as an experiment.", Fault),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One plot over a swept field: the model as a line, a point for each segment.

    Attributes:
        swept: The Spec field on the x axis.
        quantity: On the y axis.
        relative: Drawn relative to one, as speed-up and efficiency.
    """

    swept: str
    quantity: str
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """A record of intervals, drawn as bars in lanes over time; `Prediction.extra[record]` holds the same columns, predicted.

    Two views: the whole run, where each label is a thing with a colour of its own (a job), what was predicted behind what was
    measured; or, where `frame` is given, one tick, where a label is a kind of work, what was predicted below what was measured.

    Attributes:
        record: A table of `Experiment.records` with the columns below.
        lane, label, start, end: Its columns: the row of the chart, what the bar is, and seconds of the run, or of the frame.
        lanes, bars: What a lane and a bar are called ("Node", "Job").
        frame: Column with the tick to which a row belongs: the newest one that all lanes have written is drawn. A prediction
            needs no such column: it is of one tick. "": the whole run is drawn.
        kinds: Name and part (`Quantity.part`, for the colour) of each kind; then `label` holds an index into it. With `frame` only.
        detail: Column with a number that stands in the bar where there is room (a micro-batch); negative or NaN: none.
        details: What that number is called ("Micro-batch").
    """

    record: str
    lane: str
    label: str
    start: str
    end: str
    lanes: str
    bars: str
    frame: str = ""
    kinds: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    details: str = ""

    def __post_init__(self) -> None:
        if (
            bool(self.frame) != bool(self.kinds)
            or (self.detail and not self.frame)
            or bool(self.detail) != bool(self.details)
        ):
            raise ValueError(
                f"timeline of {self.record!r}: `frame` and `kinds` come together, `detail` only with them and with its name `details`"
            )


@dataclass(frozen=True, slots=True)
class Companion:
    """A process beside the ranks, for what cannot be one: `python -m module RUN INCARNATION`, under the same supervisor."""

    name: str
    module: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What one segment left behind besides samples.

    Attributes:
        begun_s, steady_s, ended_s: Monotonic time of its beginning, of the end of its warm-up, and of its last tick.
        ticks: Its ticks after the warm-up, all nodes combined, one row each.
        records: Its rows of each table of `Experiment.records`, with `writer` (a node) and `t_s` (monotonic, when written).
        run: The rows of all segments so far, where a quantity belongs to the whole run.
    """

    begun_s: float
    steady_s: float
    ended_s: float
    ticks: pd.DataFrame
    records: Mapping[str, pd.DataFrame]
    run: Mapping[str, pd.DataFrame]


class Experiment(ABC):
    """One kind of thing the nodes can do. Subclasses declare; they hold no state.

    Attributes:
        name: In the registry, on the command line and in `Lab(name)`.
        title: For people.
        spec: The Spec class.
        program: `module:Class` that the ranks load; a string, so that torch and MPI stay out of the kernel.
        tick: What one tick is called ("step").
        compared: Quantities shown side by side, most important first.
        parts: Quantities that add up to `compared[0]`.
        curves: Plots over a swept field.
        settle_ticks: Ticks of a segment that are warm-up and not compared.
        min_ticks: Ticks after warm-up that make a median; a shorter segment is shown as transient.
        live_series: Quantities drawn over ticks.
        verbs: Beyond COMMON_VERBS.
        quantities: Own entries of the vocabulary.
        records: Tables that nodes write a row to for each thing that happens, by name with their columns (all numbers).
        timeline: A record to draw over time.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    spec: ClassVar[type[Spec]]
    program: ClassVar[str]
    tick: ClassVar[str] = "step"
    compared: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[tuple[Curve, ...]] = ()
    settle_ticks: ClassVar[int] = 5
    min_ticks: ClassVar[int] = 10
    live_series: ClassVar[tuple[str, ...]] = ()
    verbs: ClassVar[tuple[Verb, ...]] = ()
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    timeline: ClassVar[Timeline | None] = None

    @abstractmethod
    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """Return what theory says, before the run. Pure: no I/O, nothing is run.

        Args:
            spec: What is asked.
            machine: The calibrated profile (or catalog row) it is asked of.
            over: Spec fields replaced by arrays that broadcast together; the values then hold arrays (one call, one sweep).

        Raises:
            ModelInputError: Outside the model's domain.
        """

    def admit(self, spec: Spec, machine: Machine) -> None:  # noqa: B027 - most are admitted by their node count alone
        """Refuse what `machine` cannot carry out, asked before a run is started or changed; more nodes are refused elsewhere.

        Raises:
            AdmissionError: With the figures and a way out.
        """

    def sweep(self, spec: Spec, machine: Machine, curve: Curve) -> Sequence[float]:
        """Return where to draw the model of `curve`: by default each count to twice the cores, or 40 values to twice the present one."""
        if self.spec.knobs()[curve.swept].kind == "int":
            return range(1, max(2 * machine.cores, 4, int(getattr(spec, curve.swept))) + 1)
        return [2 * getattr(spec, curve.swept) * (i + 1) / 40 for i in range(40)]

    def reference_curves(self, spec: Spec, machine: Machine, curve: Curve, values: Sequence[float]) -> dict[str, Any]:
        """Return named reference curves (ideal, Amdahl ...) of `curve` over `values`; empty where there are none."""
        return {}

    def foreseen(self, spec: Spec) -> Iterable[Spec]:
        """Return what a run may turn `spec` into by itself (an autoscaler), so that it is predicted before it happens."""
        return ()

    def companions(self, spec: Spec) -> tuple[Companion, ...]:
        """Return the processes that a run of `spec` needs beside its ranks."""
        return ()

    def distil(self, spec: Spec, machine: Machine, observed: Observed) -> dict[str, Value]:
        """Return what only a segment's records tell: percentiles, waits. They replace the medians of samples of the same name."""
        return {}

    def derive(self, spec: Spec, machine: Machine, measured: Mapping[str, Value], elapsed_s: float) -> dict[str, Value]:
        """Return quantities that follow from what was measured in a segment (throughput, energy, cost), each with its method.

        Args:
            spec: Of the segment.
            machine: Kept with the run.
            measured: Medians by quantity.
            elapsed_s: Wall time of the segment so far.
        """
        return {}

    def incomparable(self, predicted: Prediction, measured: Mapping[str, Value]) -> str:
        """Return why a segment is not what was predicted (a part of a whole), so that it must not be compared; "" where it may be."""
        return ""

    def explain(self, spec: Spec, machine: Machine, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
        """Return sentences, best first, on causes that only this experiment can name; the comparison adds its own."""
        return []

    def all_verbs(self) -> dict[str, Verb]:
        """Return common and own verbs by name."""
        return {v.name: v for v in (*COMMON_VERBS, *self.verbs)}


@cache
def experiment_names() -> tuple[str, ...]:
    """Return the names registered under the entry-point group `aiinfra.experiments`; nothing is imported."""
    return tuple(sorted({e.name for e in entry_points(group=GROUP)}))


@cache
def experiment(name: str) -> Experiment:
    """Return one experiment; it is imported now, so that one that is broken does not take the others with it.

    Raises:
        UnknownNameError: With the near matches.
    """
    for entry in entry_points(group=GROUP, name=name):
        found: Experiment = entry.load()()
        register(found.quantities)
        return found
    raise UnknownNameError(f"no experiment {name!r}; {near(name, experiment_names())}")
