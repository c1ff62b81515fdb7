"""Validation that every model shares: it reads floats, arrays and pint quantities alike, and refuses NaN everywhere.

Models stay plain arithmetic, so that one function serves a slider, a sweep and a dimension test.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ModelInputError

#: A float, an array that broadcasts with the other arguments, or (in dimension tests) a pint quantity of either.
Number = Any


def magnitude(value: Number) -> Any:
    """Return the bare numbers of `value` as a float array; "50 percent" is 0.5."""
    if getattr(value, "dimensionless", False):
        value = value.to_base_units()
    return np.asarray(getattr(value, "magnitude", value), dtype=float)


def need(
    name: str,
    value: Number,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    whole: bool = False,
    infinite: bool = False,
    hint: str = "",
) -> None:
    """Refuse `value` unless every element lies in its domain.

    Args:
        name: As the caller spells it.
        value: What was given.
        low, high: Inclusive limits of the bare number.
        above: The lower limit itself is not allowed.
        whole: Only whole numbers.
        infinite: Infinity is a value too (a link without limit).
        hint: What to do about it.

    Raises:
        ModelInputError: With the first value that is wrong, what is allowed, and the hint.
    """
    allowed = f"{'a whole number ' if whole else ''}{'>' if above else '>='} {low:g}"
    allowed += f" and <= {high:g}" if high < math.inf else "" if infinite else " and finite"
    tail = f"; {hint}" if hint else ""
    try:
        numbers = magnitude(value)
    except (TypeError, ValueError) as error:
        raise ModelInputError(f"{name} must be {allowed}, got {value!r}{tail}") from error
    fine = ((numbers > low) if above else (numbers >= low)) & (numbers <= high)
    if not infinite:
        fine &= np.isfinite(numbers)
    if whole:
        fine &= numbers == np.floor(numbers)
    if not np.all(fine):
        raise ModelInputError(f"{name} must be {allowed}, got {np.ravel(numbers)[~np.ravel(fine)][0]:g}{tail}")


def need_ranks(name: str, value: Number) -> None:
    """Refuse anything but whole numbers from 1."""
    need(name, value, 1, whole=True, hint="a job has at least one rank")


def need_rate(name: str, value: Number) -> None:
    """Refuse a rate, bandwidth or peak that is not positive; infinity means "no limit"."""
    need(name, value, above=True, infinite=True, hint="check the calibration or the catalog row")


def need_fraction(name: str, value: Number) -> None:
    """Refuse what is not between 0 and 1; 50 % is 0.5."""
    need(name, value, 0, 1, hint="write 50 % as 0.5")
