"""The Pareto front against its definition, and at the size that a search needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.planning.pareto import nondominated


def by_definition(points: np.ndarray) -> np.ndarray:
    """A point is dominated when another is nowhere worse and somewhere better."""
    a, b = points[:, None, :], points[None, :, :]
    return ~((b <= a).all(axis=2) & (b < a).any(axis=2)).any(axis=1)


# Few values, so that ties in one, two and all columns are common.
few = st.sampled_from([0.0, 1.0, 2.0, 3.5, -1.0, 1e300, np.inf])
shapes = st.tuples(st.integers(0, 40), st.integers(1, 3))


@given(arrays.arrays(float, shapes, elements=few))
def test_with_many_ties_it_is_the_definition(points):
    np.testing.assert_array_equal(nondominated(points), by_definition(points))


@given(arrays.arrays(float, shapes, elements=st.floats(-1e9, 1e9)))
def test_with_few_ties_it_is_the_definition(points):
    np.testing.assert_array_equal(nondominated(points), by_definition(points))


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_larger_sets_than_hypothesis_makes(columns):
    points = np.random.default_rng(columns).integers(0, 60, (1500, columns)).astype(float)
    np.testing.assert_array_equal(nondominated(points), by_definition(points))


def test_a_front_that_is_everything_is_kept_whole():
    x = np.linspace(0, 1, 5001)
    assert nondominated(np.column_stack([x, 1 - x])).all()
    assert nondominated(np.column_stack([x, 1 - x, np.zeros_like(x)])).all()


def test_a_million_points_leave_the_front_that_the_definition_confirms():
    points = np.random.default_rng(0).lognormal(size=(1_000_000, 3))
    on = nondominated(points)
    front = points[on]
    assert by_definition(front).all()  # none of the front beats another
    rest = points[~on]
    beaten = np.zeros(len(rest), dtype=bool)
    for one in front:
        beaten |= (one <= rest).all(axis=1)
    assert beaten.all()  # each of the others is beaten by the front


def test_the_order_of_the_points_does_not_matter():
    rng = np.random.default_rng(3)
    points = rng.integers(0, 9, (400, 3)).astype(float)
    order = rng.permutation(400)
    np.testing.assert_array_equal(nondominated(points)[order], nondominated(points[order]))


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((3, 4)), "must have shape (n, 1), (n, 2) or (n, 3), got (3, 4)"),
        (np.zeros(3), "got (3,)"),
        (np.array([[1.0, np.nan]]), "must not be NaN; leave out what is not known"),
    ],
    ids=["four-columns", "flat", "nan"],
)
def test_what_it_refuses(points, says):
    with pytest.raises(ModelInputError) as error:
        nondominated(points)
    assert says in str(error.value)
