"""What a person types, and what a units library says of a formula; right and wrong ones are planted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.claims import units
from aiinfra_widgets.errors import SpecError


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("10 GB", "B", 10e9),
        ("64 MiB", "B", 64 * 2**20),
        ("8 Gbit", "B", 1e9),
        ("1 Gbit/s", "B/s", 1.25e8),
        ("1 Gbps", "B/s", 1.25e8),
        ("1 GB/s", "B/s", 1e9),
        ("1 gigabit per second", "B/s", 1.25e8),
        ("100 km", "m", 1e5),
        ("24 h", "s", 86400.0),
        ("1.5e-3 s", "s", 1.5e-3),
        ("100 TPS", "request/s", 100.0),
        ("100 requests / s", "request/s", 100.0),
        ("5 %", "1", 0.05),
        ("8 cores", "1", 8.0),
        ("4", "1", 4.0),
        ("-3 km", "m", -3000.0),
    ],
)
def test_what_people_type_is_read(text: str, unit: str, value: float) -> None:
    assert units.parse("x", text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        pytest.param("10 km", "B", "which is a length; allowed: a size such as 10 GB", id="dimension"),
        pytest.param("10", "s", "which is a plain number; allowed: a time", id="no-unit"),
        pytest.param("3 s", "1", "which is a time; allowed: a plain number", id="unit-too-many"),
        pytest.param("5 flurb", "s", "no unit 'flurb'", id="unknown-unit"),
        pytest.param("10 GB/", "B", "no unit 'GB/'", id="half-a-unit"),
        pytest.param("ten", "1", "cannot read 'ten'", id="no-number"),
        pytest.param("", "s", "cannot read ''", id="empty"),
        pytest.param("9**9**9", "1", "cannot read", id="no-arithmetic"),
        pytest.param("1e999 s", "s", "too large", id="infinite"),
        pytest.param("nan s", "s", "cannot read", id="not-a-number"),
        pytest.param("\u0661\u0662 s" + "x" * 60, "s", "cannot read", id="long"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, unit: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        units.parse("Size", text, unit)
    assert str(caught.value).startswith("Size: ")
    assert says in str(caught.value)
    assert "allowed: " in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader(text: str) -> None:
    for unit in ("s", "B", "1"):
        try:
            assert isinstance(units.parse("x", text, unit), float)
        except SpecError:
            continue


@given(st.floats(1e-6, 1e15), st.sampled_from(["s", "B", "B/s", "m", "request/s", "flop", "flop/s", "1"]))
def test_every_value_has_words(value: float, unit: str) -> None:
    assert units.said(value, unit)


PLANTED = [
    pytest.param(lambda a, b: a / b, {"a": "B", "b": "B/s"}, "s", True, "a time", id="size-over-rate"),
    pytest.param(
        lambda a, b: a / b,
        {"a": "m", "b": "B/s"},
        "s",
        False,
        "length \u00d7 time / information",
        id="length-over-rate",
    ),
    pytest.param(
        lambda a, b: a / b, {"a": "request/s", "b": "request/s"}, "s", False, "a plain number", id="rate-over-rate"
    ),
    pytest.param(lambda a, b: a / b, {"a": "s", "b": "1"}, "s", True, "a time", id="time-over-count"),
    pytest.param(lambda a, b: a / (a + b), {"a": "s", "b": "s"}, "1", True, "a plain number", id="share"),
    pytest.param(lambda a, b: a + b, {"a": "s", "b": "B"}, "s", False, "a time added to a size", id="sum-of-unlike"),
    pytest.param(
        lambda a, b: a + 0 * b, {"a": "1", "b": "s"}, "1", False, "a plain number added to a time", id="number-and-time"
    ),
    pytest.param(lambda a, b: 1 / (a * b), {"a": "s", "b": "1"}, "1/s", True, "a rate", id="rate"),
    pytest.param(lambda a, b: a * b / a, {"a": "flop", "b": "s"}, "B", False, "a time", id="other-dimension"),
]


@pytest.mark.parametrize(("formula", "given_", "result", "right", "found"), PLANTED)
def test_dimensions_planted(formula: object, given_: dict[str, str], result: str, right: bool, found: str) -> None:
    said = units.dimensions(formula, {"a": 3.0, "b": 2.0}, given_, result)  # type: ignore[arg-type]
    assert (said.right, said.found) == (right, found)
    assert said.expected == units.called(units.registry().parse_units(units.pint_unit(result)).dimensionality)


def test_the_claims_are_light_until_something_is_typed() -> None:
    heavy = {"pint", "torch", "mpi4py", "bokeh", "ipywidgets", "pandas"}
    script = f"from aiinfra_widgets.claims import claims; claims(); import sys; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
