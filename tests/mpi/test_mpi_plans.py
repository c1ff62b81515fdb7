"""Every strategy and every pair of them on up to eight real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

from pathlib import Path

import pytest

INNER = Path(__file__).with_name("plans_on_ranks.py")

pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("ranks", "tests"),
    [(5, "by_itself"), (4, "sequences or pair or drawn"), pytest.param(8, "eight_ranks", marks=pytest.mark.slow)],
    ids=["strategies", "pairs", "eight-ranks"],
)
def test_every_plan_computes_what_one_process_computes(on_ranks, ranks, tests):
    on_ranks(INNER, ranks, "-k", tests, all_s=580)
