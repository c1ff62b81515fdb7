"""Which points to measure, and in which order: grids, one factor at a time, space-filling designs, over any experiment's Spec.

Every point is a validated Spec before anything runs. The order is drawn from a seed and blocked by repeat: each repeat goes
through all points once, in an order of its own, so that a machine that slowly gets busier does not look like an effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from ..errors import SpecError, near
from ..experiment import Experiment, Knob, Spec

Design = Literal["grid", "one-at-a-time", "latin-hypercube", "sobol"]
DESIGNS: tuple[Design, ...] = ("grid", "one-at-a-time", "latin-hypercube", "sobol")
SPACE_FILLING: tuple[Design, ...] = ("latin-hypercube", "sobol")
#: More trials than this is a mistake of typing.
MOST_TRIALS = 10_000
#: What stands between the ends of a range, as typed: "0.001..0.1".
DOTS = ".."


@dataclass(frozen=True, slots=True)
class Range:
    """The ends of a factor, for a design that fills the space between them."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Factor:
    """One field that varies: its levels, or its range.

    Attributes:
        knob: Of the Spec.
        levels: Values in the order given; empty for a range.
        range: Its ends, None for levels.
    """

    knob: Knob
    levels: tuple[Any, ...] = ()
    range: Range | None = None

    @property
    def name(self) -> str:
        """The field."""
        return self.knob.name


@dataclass(frozen=True, slots=True)
class Trial:
    """One run to be made.

    Attributes:
        index: In order of execution.
        point: Which combination of levels.
        repeat: How often that point was taken before.
        spec: What is asked.
    """

    index: int
    point: int
    repeat: int
    spec: Spec


def factor(exp: Experiment, name: str, given: Any) -> Factor:
    """Return one factor from what a person gave: a list of values, a `Range`, or text as typed ("1,2,4", "0.001..0.1").

    Raises:
        SpecError: No such field, no value, a value twice, or one that is not allowed, with what is.
    """
    knobs = exp.spec.knobs()
    if name not in knobs:
        raise SpecError(f"{name}: no such field of {exp.name}; {near(name, knobs)}")
    knob = knobs[name]
    if isinstance(given, str):
        given = _ends(knob, given) if DOTS in given else [v for v in given.split(",") if v.strip()]
    if isinstance(given, Range):
        return Factor(knob, range=_checked(knob, given))
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise SpecError(f"{name}: got {given!r}; give a list of values, such as [1, 2, 4]")
    levels = [knob.parse(v) if isinstance(v, str) else v for v in given]
    if not levels:
        raise SpecError(f"{name}: got no value; give some, such as {name}={knob.default}")
    checked = tuple(_allowed(exp, knob, v) for v in levels)
    if len(set(checked)) < len(checked):
        raise SpecError(f"{name}: got a value twice in {levels}; give each once, and use repeats for more of the same")
    return Factor(knob, checked)


def _allowed(exp: Experiment, knob: Knob, value: Any) -> Any:
    """Return `value` as the Spec stores it, judged alone: whether it goes with the other fields is asked of whole points."""
    value = value.item() if hasattr(value, "item") else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = {
        "bool": isinstance(value, bool),
        "choice": value in knob.choices,
        "text": isinstance(value, str),
        "int": number and math.isfinite(value) and float(value).is_integer(),
        "float": number and math.isfinite(value),
    }[knob.kind]
    if not good or (number and not knob.inside(value)):
        hint = f"; {near(str(value), knob.choices)}" if knob.kind == "choice" else ""
        raise SpecError(knob.refusal(value) + hint)
    return int(value) if knob.kind == "int" else float(value) if knob.kind == "float" else value


def _ends(knob: Knob, text: str) -> Range:
    if knob.kind not in {"int", "float"}:
        raise SpecError(f"{knob.name}: got {text!r}; only a number has a range; allowed: {knob.allowed}")
    low, _, high = text.partition(DOTS)
    return Range(knob.parse(low), knob.parse(high))


def _checked(knob: Knob, given: Range) -> Range:
    if knob.kind not in {"int", "float"}:
        raise SpecError(f"{knob.name}: only a number has a range; allowed: {knob.allowed}")
    outside = not (knob.inside(given.low) and knob.inside(given.high))
    if outside or not given.low < given.high:
        raise SpecError(
            f"{knob.name}: got {given.low:g}{DOTS}{given.high:g}; allowed: {knob.allowed}, the lower end first"
        )
    if knob.log and given.low <= 0:
        raise SpecError(
            f"{knob.name}: got {given.low:g}{DOTS}{given.high:g}; a field that is spread logarithmically starts above 0"
        )
    return given


def points(
    exp: Experiment, base: Spec, factors: Sequence[Factor], design: Design, num_points: int | None, seed: int
) -> list[dict[str, Any]]:
    """Return the combinations of `design`, each as the fields that it sets.

    Args:
        exp: Whose Spec it is.
        base: Everything that does not vary; for "one-at-a-time" also the centre.
        factors: What varies.
        design: One of DESIGNS. A grid takes all combinations of levels; one at a time varies one factor while the others stay as in
            `base`; the space-filling ones draw `num_points` combinations, from levels too, evenly in the logarithm where the field
            is one of orders of magnitude.
        num_points: For a space-filling design.
        seed: Of the draw.

    Raises:
        SpecError: An unknown design, a range where levels are needed, or the other way round.
    """
    if design not in DESIGNS:
        raise SpecError(f"design: got {design!r}; {near(design, DESIGNS)}")
    if not factors:
        raise SpecError("nothing varies; name at least one field with its values, such as nodes=1,2")
    if design in SPACE_FILLING:
        if num_points is None or not 1 <= num_points <= MOST_TRIALS:
            raise SpecError(
                f"points: got {num_points}; the design {design} needs a number of points from 1 to {MOST_TRIALS}"
            )
        return _filled(factors, design, num_points, seed)
    if num_points is not None:
        raise SpecError(
            f"points: got {num_points}; a {design} design takes its points from the levels; use {' or '.join(SPACE_FILLING)}"
        )
    for f in factors:
        if f.range is not None:
            raise SpecError(
                f"{f.name}: got a range; a {design} design needs values, such as {f.name}={f.range.low:g},{f.range.high:g}"
            )
    if design == "grid":
        count = math.prod(len(f.levels) for f in factors)
        if count > MOST_TRIALS:
            raise SpecError(
                f"the grid has {count} points; at most {MOST_TRIALS}; take fewer levels, or a space-filling design"
            )
        return [
            dict(zip((f.name for f in factors), levels, strict=True))
            for levels in product(*(f.levels for f in factors))
        ]
    centre = {f.name: getattr(base, f.name) for f in factors}
    found = [centre, *({**centre, f.name: level} for f in factors for level in f.levels)]
    return [p for i, p in enumerate(found) if p not in found[:i]]


def _filled(factors: Sequence[Factor], design: Design, num_points: int, seed: int) -> list[dict[str, Any]]:
    """Draw points in the unit cube and stretch each side to its factor. scipy is imported here: it takes half a second."""
    from scipy.stats import qmc

    dimensions = len(factors)
    if design == "sobol":
        # A Sobol sequence is balanced in whole powers of two only: the first points of the next one are taken.
        cube = qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(max(num_points - 1, 0).bit_length())[
            :num_points
        ]
    else:
        cube = qmc.LatinHypercube(dimensions, rng=np.random.default_rng(seed)).random(num_points)
    columns = [[_at(f, share) for share in cube[:, i]] for i, f in enumerate(factors)]
    return [dict(zip((f.name for f in factors), row, strict=True)) for row in zip(*columns, strict=True)]


def _at(f: Factor, share: float) -> Any:
    """Return the value of a factor at `share`, from 0 to 1, of its way."""
    if f.range is None:
        return f.levels[min(int(share * len(f.levels)), len(f.levels) - 1)]
    low, high, whole = f.range.low, f.range.high, f.knob.kind == "int"
    if whole:  # each whole number gets a stretch of its own, also the two at the ends
        low, high = low - 0.5, high + 0.5
        if f.knob.log:
            low = max(low, 0.5)
    value = low * (high / low) ** share if f.knob.log else low + (high - low) * share
    return int(min(max(round(value), f.range.low), f.range.high)) if whole else float(value)


def trials(
    exp: Experiment,
    base: Spec,
    found: Sequence[Mapping[str, Any]],
    *,
    repeats: int,
    seed: int,
    shuffle: bool = True,
    new_seeds: bool = False,
) -> list[Trial]:
    """Return every run to be made, in order of execution, each validated as a whole.

    Args:
        exp: Whose Spec it is.
        base: What the points do not set.
        found: From `points`.
        repeats: How often each point is taken.
        seed: Of the order.
        shuffle: Each repeat in an order of its own; else in the order of the points.
        new_seeds: Each repeat gets another seed of its Spec: the spread then holds chance of the work too, not of the machine alone.

    Raises:
        SpecError: A combination that the Spec refuses, with the point; too many trials.
    """
    if not 1 <= repeats <= MOST_TRIALS or len(found) * repeats > MOST_TRIALS:
        raise SpecError(
            f"repeats: got {repeats} for {len(found)} points; at least 1, and at most {MOST_TRIALS} runs in all"
        )
    specs, problems = [], []
    for changes in found:
        try:
            specs.append(base.changed(changes, live_only=False))
        except SpecError as error:
            said = " ".join(f"{k}={v}" for k, v in changes.items())
            problems.append(f"the point {said} is not allowed: {error}")
    if problems:
        more = f"\nand {len(problems) - 5} other points" if len(problems) > 5 else ""
        raise SpecError("\n".join(problems[:5]) + more)
    draw = np.random.default_rng(seed)
    order: list[tuple[int, int]] = []
    for repeat in range(repeats):
        block = draw.permutation(len(specs)) if shuffle else np.arange(len(specs))
        order += [(int(point), repeat) for point in block]
    return [Trial(i, point, repeat, _again(specs[point], repeat, new_seeds)) for i, (point, repeat) in enumerate(order)]


def _again(spec: Spec, repeat: int, new_seeds: bool) -> Spec:
    return spec.changed({"seed": (spec.seed + repeat) % 2**31}, live_only=False) if new_seeds and repeat else spec
