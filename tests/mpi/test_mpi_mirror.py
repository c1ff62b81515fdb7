"""Copies in a neighbour's memory on real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

from pathlib import Path

import pytest

INNER, RANKS = Path(__file__).with_name("mirror_on_ranks.py"), 4
pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
def test_copies_are_the_whole_state_and_cost_what_was_predicted(on_ranks):
    on_ranks(INNER, RANKS)
