"""Memory and traffic of plans on real ranks against their prediction; the tests themselves run under mpiexec."""

from __future__ import annotations

from pathlib import Path

import pytest

INNER, RANKS = Path(__file__).with_name("predicted_on_ranks.py"), 4
pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
def test_what_plans_hold_and_send_is_what_was_predicted(on_ranks):
    on_ranks(INNER, RANKS)
