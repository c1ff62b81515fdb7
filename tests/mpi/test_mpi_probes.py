"""The probes of several ranks on three real ranks, one more than pairs need: the test itself runs under mpiexec."""

from __future__ import annotations

from pathlib import Path

INNER = Path(__file__).with_name("probes_on_ranks.py")


def test_the_probes_of_several_ranks(on_ranks):
    on_ranks(INNER, 3, each_s=200, all_s=240)
