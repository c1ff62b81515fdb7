"""What the scale-out lab knows, without any interface: the fields, the last good answer, the learner's guess, the record."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..course import ledger
from ..errors import CatalogError, ControlError, LabError, ModelInputError, SpecError
from ..planning.nearest import PublishedRun, nearest, published_runs
from ..planning.plans import DEGREE_RULES
from ..planning.scale import ScaleAnswer, scale_out
from .scale_out_fields import MOST, MY_RUN, ScaleOutFields, Setup, peak_flops, setup
from .scale_out_run import answer_of_run

#: Bars and columns: the counts of the question, two between them; the one that is chosen comes after them.
BARS = (8, 64, 512, 4096, 16_384, 100_000)
CURVE_POINTS = 90
QUESTION = "exposed_comm_frac"


@dataclass(frozen=True)
class Picture:
    """One answer, whole: what every figure and table shows.

    Attributes:
        fields: That it answers.
        bars: On BARS, and last on the number that was chosen.
        curve: On whole numbers of replicas.
        memory_bytes: Of one accelerator; None where memory is not modelled.
        assumed: By topic, what was assumed, and where it comes from.
        record: Published runs nearest to the plan; empty where there is no plan to compare.
    """

    fields: ScaleOutFields
    bars: ScaleAnswer
    curve: ScaleAnswer
    memory_bytes: float | None
    assumed: Mapping[str, str]
    record: Sequence[PublishedRun] = ()


class ScaleOutState:
    """Fields, answer, guess.

    Args:
        values: Fields that are not as by default.
        published: Table of published runs; None is the one that ships.

    Raises:
        SpecError: A value that is not allowed.
    """

    def __init__(self, values: Mapping[str, Any], published: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.fields = ScaleOutFields.make(values)
        self.picture: Picture | None = None
        self.problem = ""
        self.no_record = ""
        self.guess: float | None = None
        self.revealed: Picture | None = None
        self.computed = 0
        self._published = published
        self._read: tuple[PublishedRun, ...] | None = None
        self._compute()

    @property
    def stale(self) -> bool:
        """Whether the picture is of earlier fields, because those of now cannot be answered."""
        return bool(self.problem) and self.picture is not None

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set fields and compute again; a plan that cannot be is told in `problem`, and the last good picture stays.

        Raises:
            SpecError: A value that is not allowed; nothing has changed.
        """
        with self.lock:
            fields = ScaleOutFields.make({**self.fields.model_dump(), **changes})
            if fields != self.fields:
                self.fields = fields
                self._compute()

    def commit(self, value: float) -> None:
        """Write the learner's guess into the ledger, before the answer is shown.

        Args:
            value: Share of a step that is communication, 0 to 1.

        Raises:
            ControlError: It was committed before, or there is no answer to guess.
            SpecError: A share outside 0 to 1.
        """
        with self.lock:
            if self.picture is None or self.stale:
                raise ControlError(f"there is nothing to guess yet: {self.problem}")
            if self.guess is not None:
                raise ControlError(f"you have committed {self.guess:.0%} already; start over to guess again")
            if not 0 <= value <= 1:
                raise SpecError(f"Communication: got {value * 100:g} %; allowed: 0 to 100 %")
            ledger.commit("scale_out", QUESTION, value, self.fields.model_dump())
            self.guess, self.revealed = value, self.picture

    def start_over(self) -> None:
        """Forget the guess, so that another setup can be guessed; the ledger keeps it."""
        with self.lock:
            self.guess = self.revealed = None

    def _compute(self) -> None:
        self.computed += 1
        try:
            self.picture = self._picture(self.fields)
            self.problem = ""
        except LabError as error:
            self.problem = str(error)

    def _picture(self, f: ScaleOutFields) -> Picture:
        counts = np.array([*BARS, f.accelerators], dtype=float)
        both = np.concatenate([counts, whole_replicas(f)])
        if f.model == MY_RUN:
            answer, assumed = answer_of_run(f, both)
            return Picture(
                f, _part(answer, slice(0, len(counts))), _part(answer, slice(len(counts), None)), None, assumed
            )
        try:
            found = setup(f)
            answer = scale_out(
                found.model, found.plan, found.cluster, both, tokens=f.tokens, conditions=found.conditions, scaling=f.scaling  # type: ignore[arg-type]
            )  # fmt: skip
        except ModelInputError as error:
            raise ModelInputError(_plainly(f, error)) from error
        return Picture(
            f,
            _part(answer, slice(0, len(counts))),
            _part(answer, slice(len(counts), None)),
            float(found.cluster.accelerator.memory_bytes),
            found.conditions.sources,
            self._nearest(found, f),
        )

    def _nearest(self, found: Setup, f: ScaleOutFields) -> Sequence[PublishedRun]:
        try:
            if self._read is None:
                self._read = published_runs(peak_flops, self._published)
            self.no_record = ""
        except CatalogError as error:
            self.no_record = str(error)
            return ()
        return nearest(self._read, float(found.model.active_parameters), f.accelerators, found.accelerator, 10, 2)


def whole_replicas(f: ScaleOutFields) -> Any:
    """Return numbers of accelerators from one replica to the most there may be, each a whole number of replicas."""
    shard = 1 if f.model == MY_RUN else f.tp_size * f.pp_size * f.cp_size
    first = max(1.0, np.ceil(BARS[0] / shard))
    return shard * np.unique(np.round(np.geomspace(first, max(first, MOST // shard), CURVE_POINTS)))


def _part(answer: ScaleAnswer, where: slice) -> ScaleAnswer:
    """Return the answer of some of the counts."""
    start, stop, _ = where.indices(len(answer.accelerators))
    return ScaleAnswer(
        answer.accelerators[where],
        answer.used[where],
        {k: replace(v, value=v.value[where]) for k, v in answer.values.items()},
        answer.least,
        {i - start: why for i, why in answer.reasons.items() if start <= i < stop},
        answer.notes,
    )


def _plainly(f: ScaleOutFields, error: ModelInputError) -> str:
    """Return what is wrong with a plan; of tensor parallelism in the words of its own rule, which lists what is allowed."""
    if not str(error).startswith("heads / tp_size"):
        return str(error)
    found = setup(f)
    return DEGREE_RULES[0].says(found.model, found.plan, 0)
