"""What a person types, with its unit, and what dimension a formula's result has. pint does both, and is imported only then."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import SpecError
from ..quantities import show
from ..texts import N_

#: The units of the claims, as pint reads definitions. Its own list makes a bit a plain number, and then a size over a number would
#: pass for a size; here information, requests and arithmetic are dimensions.
_DEFINITIONS = """
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
milli- = 1e-3 = m-
micro- = 1e-6 = µ- = u-
nano- = 1e-9 = n-
kibi- = 1024 = Ki-
mebi- = 1024**2 = Mi-
gibi- = 1024**3 = Gi-
tebi- = 1024**4 = Ti-
meter = [length] = m = metre
second = [time] = s = sec
minute = 60 * second = min
hour = 60 * minute = h
day = 24 * hour = d
bit = [information] = bit
byte = 8 * bit = B
bps = bit / second
request = [request]
TPS = request / second
flop = [arithmetic]
percent = 0.01 = %
core = 1
node = 1
task = 1
"""
#: A number and a unit of words, nothing else: pint would also work out `9**9**9`.
_TYPED = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%\u00b5 /*\u00b7]{0,40}?)\s*")
#: By base unit, how the dimension is called.
_CALLED = {
    "s": N_("a time"), "B": N_("a size"), "B/s": N_("a data rate"), "m": N_("a length"),
    "1": N_("a plain number"), "request/s": N_("requests per time"),
    "flop": N_("an amount of arithmetic"), "flop/s": N_("arithmetic per time"), "1/s": N_("a rate"),
}  # fmt: skip
_EXAMPLES = {
    "s": "24 h", "B": "10 GB", "B/s": "1 Gbit/s", "m": "100 km", "1": "4", "request/s": "100 request/s", "flop": "2 Tflop",
}  # fmt: skip


@cache
def registry() -> Any:
    """Return the one registry of the claims."""
    import pint

    found: Any = pint.UnitRegistry(None)
    found.load_definitions(_DEFINITIONS.splitlines())
    return found


def parse(name: str, text: str, unit: str) -> float:
    """Return what was typed, in `unit`.

    Args:
        name: Of the input, for the message.
        text: "10 GB", "1 Gbit/s", "5 %"; a bare number only where `unit` is "1".
        unit: The base unit that is wanted.

    Raises:
        SpecError: Not a number with a unit, a unit that is not known, or one of another dimension.
    """
    wanted = f"allowed: {_CALLED[unit]} such as {_EXAMPLES[unit]}"
    match = _TYPED.fullmatch(str(text))
    if match is None:
        raise SpecError(f"{name}: cannot read {text!r}; {wanted}")
    number, words = float(match[1]), match[2].strip()
    if not math.isfinite(number):
        raise SpecError(f"{name}: got {text!r}, too large a number; {wanted}")
    try:
        given = registry().parse_units(words) if words else registry().parse_units("dimensionless")
    except Exception as error:  # pint raises several unrelated types for one cause: this is no unit
        raise SpecError(f"{name}: no unit {words!r} in {text!r}; {wanted}") from error
    try:
        return float(registry().Quantity(number, given).to(pint_unit(unit)).magnitude)
    except Exception as error:
        raise SpecError(f"{name}: got {text!r}, which is {called(given.dimensionality)}; {wanted}") from error


def pint_unit(unit: str) -> str:
    """Return a base unit as pint writes it."""
    return {"1": "dimensionless"}.get(unit, unit.replace("B", "byte"))


def called(dimensionality: Mapping[str, float]) -> str:
    """Return a dimension in words: N_("a time"), or "length x time / information" where it has no name."""
    for unit, word in _CALLED.items():
        if registry().parse_units(pint_unit(unit)).dimensionality == dimensionality:
            return word

    def side(sign: int) -> str:
        names = [(k.strip("[]"), sign * v) for k, v in sorted(dimensionality.items()) if sign * v > 0]
        return " \u00d7 ".join(n if p == 1 else f"{n}^{p:g}" for n, p in names)

    return side(1) + (f" / {below}" if (below := side(-1)) else "") if side(1) else f"1 / {side(-1)}"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What a units library says of a formula.

    Attributes:
        right: The result has the dimension that the article gives it.
        expected, found: In words; `found` also says so where terms of different dimension are added.
        shown: The result with the unit that it really has, "" where there is none.
    """

    right: bool
    expected: str
    found: str
    shown: str = ""


def dimensions(
    formula: Callable[..., Any], values: Mapping[str, float], given: Mapping[str, str], result: str
) -> Dimensions:
    """Work `formula` out with units, and compare what comes out with what it is called.

    Args:
        formula: Of named values; the same that takes plain numbers.
        values: In base units.
        given: The base unit of each value.
        result: The base unit that the article gives the result.
    """
    import pint

    reg = registry()
    quantities = {name: reg.Quantity(float(v), pint_unit(given[name])) for name, v in values.items()}
    expected = called(reg.parse_units(pint_unit(result)).dimensionality)
    try:
        found = reg.Quantity(formula(**quantities))
    except pint.DimensionalityError as error:
        one, other = (called(reg.parse_units(str(u)).dimensionality) for u in (error.units1, error.units2))
        return Dimensions(False, expected, f"{one} added to {other}")
    right = bool(found.check(pint_unit(result)) if result != "1" else found.dimensionless)
    base = found.to(pint_unit(result)) if right else found
    return Dimensions(
        right,
        expected,
        called(found.dimensionality),
        said(float(base.magnitude), result if right else f"{base.units:~P}"),
    )


def said(value: float | None, unit: str) -> str:
    """Return a value for a person, in the unit that people use: "24 h", "10 GB", "1 Gbit/s", "100 km"."""
    if value is None or not math.isfinite(value) or unit in {"s", "1", "x", "frac"}:
        return show(unit, value)
    if unit in {"B", "B/s", "m", "request/s", "flop", "flop/s", "1/s"}:
        scaled: Any = registry().Quantity(value, {"B/s": "bit/s"}.get(unit, pint_unit(unit)))
        if unit == "B/s":
            scaled = scaled * 8
        scaled = scaled.to_compact() if unit not in {"request/s", "1/s"} else scaled
        return f"{scaled:.4g~P}".replace("request", "requests")
    return f"{value:.3g} {unit}"
