"""The one parameter set: every number has a meaning and bounds, and lies where the literature expects it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import PARAMETERS, Parameters

FACTS = Parameters.facts()


@pytest.mark.parametrize("name", FACTS)
def test_a_default_lies_in_its_bounds_and_near_its_expectation(name):
    fact, value = FACTS[name], getattr(PARAMETERS, name)
    assert fact["low"] <= fact["expected"] <= fact["high"]
    assert fact["low"] <= value <= fact["high"]
    assert abs(value - fact["expected"]) <= 3 * fact["spread"]
    assert fact["meaning"].strip()


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("side", ["low", "high"])
def test_bounds_are_allowed_and_what_is_outside_is_refused_with_its_meaning(name, side):
    bound = FACTS[name][side]
    assert getattr(replace(PARAMETERS, **{name: bound}), name) == bound
    step = 1e-6 * (FACTS[name]["high"] - FACTS[name]["low"]) * (-1 if side == "low" else 1)
    with pytest.raises(ModelInputError, match=f"{name} must be ") as refused:
        replace(PARAMETERS, **{name: bound + step})
    assert FACTS[name]["meaning"] in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "much"], ids=str)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ModelInputError, match="flash_frac must be"):
        Parameters(flash_frac=value)


def test_what_is_not_fitted_is_exactly_what_the_literature_says():
    kept = set(FACTS) - set(Parameters.fitted())
    assert kept == {"memory_frac", "optimizer_bytes"}
    for name in kept:
        assert getattr(PARAMETERS, name) == FACTS[name]["expected"]


def test_shares_and_passes_are_ordered_as_their_meanings_are():
    # A compiler saves traffic; a kernel written for a device beats a ported one; a backward pass moves more.
    p = PARAMETERS
    assert p.compiled_elementwise_traffic < p.elementwise_traffic
    assert p.flash_ported_frac < p.flash_frac < p.flash_native_frac
    assert p.backward_elementwise > 1
    assert p.node_link_frac <= 1
    assert p.fabric_frac <= 1
