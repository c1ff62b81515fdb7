"""A claim of an article: its formula and its example as printed, what is wrong with it, and the model that should stand there.

Formulas are plain arithmetic, so that one function serves numbers, a sweep of a slider, and quantities with units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelInputError, SpecError, UnknownNameError, near
from ..texts import N_
from . import units
from .units import Dimensions

Values = Mapping[str, Any]
#: The articles print rounded numbers ("about 8 s"): an example is reproduced within this share.
ROUNDED = 0.05


@dataclass(frozen=True, slots=True)
class Input:
    """One quantity that a formula, or the model beside it, needs.

    Attributes:
        name: As the formula's argument.
        symbol: As printed.
        label: For a person.
        unit: Base unit in which it is kept.
        text: What stands there first, with its unit: the printed value.
        ours: The article has no such quantity, or no value for it; the one here is assumed by us.
        low, above, high, whole: The domain.
    """

    name: str
    symbol: str
    label: str
    unit: str
    text: str
    ours: bool = False
    low: float = 0.0
    above: bool = True
    high: float = float("inf")
    whole: bool = False

    def parse(self, text: str) -> float:
        """Return what was typed, in base units.

        Raises:
            SpecError: No number, no unit, another dimension, or outside the domain.
        """
        value = units.parse(self.label, text, self.unit)
        fine = (value > self.low if self.above else value >= self.low) and value <= self.high
        if not fine or (self.whole and value != round(value)):
            raise SpecError(f"{self.label}: got {text!r}; allowed: {self.allowed}, such as {self.text}")
        return value

    @property
    def allowed(self) -> str:
        """The domain in words."""
        low = units.said(self.low, self.unit) if self.low else "0"
        words = ("a whole number " if self.whole else "") + (f"above {low}" if self.above else f"from {low}")
        return words + (f" to {units.said(self.high, self.unit)}" if np.isfinite(self.high) else "")


@dataclass(frozen=True, slots=True)
class Example:
    """A worked number of an article.

    Attributes:
        inputs: By name, as printed.
        result: As printed, with its unit.
        says: What the article makes of it, in our words.
    """

    inputs: Mapping[str, str]
    result: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class Worked:
    """An example, worked out again with the article's own formula.

    Attributes:
        printed: In base units.
        computed: The bare number that the formula really gives, in base units.
        shown: The same with the unit that it really has.
        same: The two numbers agree, but for rounding.
    """

    example: Example
    printed: float
    computed: float
    shown: str
    same: bool


@dataclass(frozen=True, slots=True)
class Axes:
    """How a claim, the right model and measured points stand in one figure.

    Attributes:
        swept: The input on the x axis.
        label: Of the x axis.
        at: Values of the swept input, in base units, given the others.
        y_label, y_unit: Of the y axis; times are in seconds, a plain number is "1" or "x".
        says: What the article says there, in the y axis' unit, of all values.
        right: What the right model says there.
        share_of: The x axis shows the swept value as percent of this input; "" shows it as it is.
        log: The y axis is logarithmic.
        ways: Labels of the measured points, where several things are done.
    """

    swept: str
    label: str
    at: Callable[..., Any]
    y_label: str
    y_unit: str
    says: Callable[..., Any]
    right: Callable[..., Any]
    share_of: str = ""
    log: bool = False
    ways: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured point.

    Attributes:
        at: Value of the swept input, base units.
        value, low, high: In the y axis' unit; low and high are what `interval` says.
        n: How many samples are behind it.
        interval: "quartiles", "95 % interval" or "range".
        setting: Inputs that differ from the rig's.
        label: What was done, where several things were; points with the same label are judged together.
        judged: False for a reference that the others are relative to: every claim agrees there.
    """

    at: float
    value: float
    low: float
    high: float
    n: int
    interval: str = N_("quartiles")
    setting: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Curve:
    """What a calibrated model says over the swept input, where it knows more than `Axes.right`. In the y axis' unit."""

    at: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What this machine says.

    Attributes:
        points: Measured.
        rig: The inputs while it was measured, base units: the example's sizes are scaled to what takes seconds.
        method: How it was measured, in a sentence or two.
        when: Date and time, ISO.
        took_s: How long it took.
        curve: The right model, where calibration knows it better than a formula.
        busy: The machine had other work, which slows down what computes.
    """

    points: tuple[Measurement, ...]
    rig: Mapping[str, float]
    method: str
    when: str
    took_s: float
    curve: Curve | None = None
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One formula of an article.

    Attributes:
        id: As in the table of sources.
        source: The article.
        about: What it is about.
        formula: As printed, in plain letters.
        latex: The same for typesetting.
        inputs: Of the formula, then those that only the right model needs (`ours`).
        result: The base unit that the article gives the result.
        compute: The formula.
        examples: As printed; may be none.
        wrong: What is wrong or missing, in our words.
        right_name: The model that should stand there.
        right: That model, for the same inputs, in `right_unit` ("" is the unit of the result).
        axes: Of the figure.
        measure: Measures within about so many seconds; None where it would be senseless, and `senseless` says why.
    """

    id: str
    source: str
    about: str
    formula: str
    latex: str
    inputs: tuple[Input, ...]
    result: str
    compute: Callable[..., Any]
    examples: tuple[Example, ...]
    wrong: str
    right_name: str
    right: Callable[..., Any]
    axes: Axes
    right_unit: str = ""
    measure: Callable[[float], Evidence] | None = None
    senseless: str = ""

    def values(self, texts: Mapping[str, str] | None = None) -> dict[str, float]:
        """Return every input in base units.

        Args:
            texts: What was typed, by name; the printed values stand for the others.

        Raises:
            SpecError: An input that is not there, or a value that is not allowed.
        """
        texts = dict(texts or {})
        if unknown := set(texts) - {i.name for i in self.inputs}:
            name = sorted(unknown)[0]
            raise SpecError(f"{self.id}: no input {name!r}; {near(name, [i.name for i in self.inputs])}")
        return {i.name: i.parse(texts.get(i.name, i.text)) for i in self.inputs}

    def own(self, values: Values) -> dict[str, Any]:
        """Return those of `values` that the printed formula itself takes."""
        return {i.name: values[i.name] for i in self.inputs if i.name in values and i.name in self._names}

    @property
    def _names(self) -> tuple[str, ...]:
        code = self.compute.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    def evaluate(self, values: Values) -> Any:
        """Return the formula's result, a plain number, array or - with units - a quantity."""
        return self.compute(**self.own(values))

    def better(self, values: Values) -> float | None:
        """Return what the right model says of these inputs, None outside its domain."""
        try:
            return float(self.right(**values))
        except ModelInputError:
            return None

    def dimensions(self, values: Values | None = None) -> Dimensions:
        """Return what a units library says of the formula."""
        own = self.own(values or self.values())
        return units.dimensions(self.compute, own, {i.name: i.unit for i in self.inputs}, self.result)

    def worked(self) -> tuple[Worked, ...]:
        """Return each printed example beside what the printed formula gives for it."""
        found = []
        for example in self.examples:
            values = self.values(example.inputs)
            printed = units.parse("printed result", example.result, self.result)
            computed = float(self.evaluate(values))
            shown, same = self.dimensions(values).shown, abs(computed - printed) <= ROUNDED * abs(printed)
            found.append(Worked(example, printed, computed, shown, same))
        return tuple(found)


def find(claims: Mapping[str, Claim], name: str) -> Claim:
    """Return the claim `name`.

    Raises:
        UnknownNameError: With the near matches.
    """
    if name not in claims:
        raise UnknownNameError(f"no claim {name!r}; {near(name, claims)}")
    return claims[name]
