"""The measurements themselves, for real and shortly: what was sent arrives, what was started ends, and bounds of physics hold."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from aiinfra_widgets.claims import claims, judge
from aiinfra_widgets.claims.measure_link import check_rate, transfer_s
from aiinfra_widgets.claims.measure_processes import measure_held_cores, pipelines_s
from aiinfra_widgets.claims.measure_service import responses_s
from aiinfra_widgets.claims.rig import Worker, mean_of, timed, workers
from aiinfra_widgets.errors import ProbeError

#: Claims whose measurement takes seconds and starts no MPI rank.
SMALL = ["S0-T", "S1-util", "S1-xfer", "S1-edge", "S2-R", "S3-MP", "S3-HP", "S4-eta"]


def our_workers() -> list[int]:
    """Return the worker processes that this test process has started and not ended."""
    return [c.pid for c in psutil.Process().children() if any("worker.py" in w for w in c.cmdline())]


@pytest.mark.parametrize("size", [1, 1000, 65536, 300_001])
def test_a_link_is_never_faster_than_its_rate(size: int) -> None:
    rate = 2e7
    assert transfer_s(size, rate) >= size / rate


def test_a_rate_beyond_the_machine_is_refused() -> None:
    with pytest.raises(ProbeError, match="where the machine moves"):
        check_rate(1e15)


def test_every_request_is_answered_and_none_before_its_service() -> None:
    found = responses_s(2, 500.0, 100.0, 0.3, seed=1)
    assert len(found) == 60
    assert all(v > 0 for v in found)
    draw = np.random.default_rng(1)
    draw.exponential(size=60)
    services = draw.exponential(1 / 500.0, 60)
    assert all(v >= s for v, s in zip(found, services, strict=True))


def test_a_pipeline_passes_on_everything_and_ends() -> None:
    rounds = pipelines_s(stages=3, replicas=2, times=2)
    assert len(rounds) == 2
    assert min(rounds) >= 0.32 / 2 / 3, "no faster than the work shared out"
    assert our_workers() == []


def test_a_process_uses_no_more_than_it_has() -> None:
    found = measure_held_cores(0.9)
    assert [p.at for p in found.points] == [0.1, 0.25, 0.5]
    assert all(0 < p.value <= 1.05 for p in found.points), "clock ticks of the system, above one"
    assert our_workers() == []


def test_a_worker_that_dies_is_named_and_the_others_end() -> None:
    with workers("chunks", 2) as crew:
        crew[0].process.kill()
        with pytest.raises(ProbeError, match="ended with code -9 instead of an answer"):
            crew[0].hear()
        with pytest.raises(ProbeError, match="ended too early"):
            crew[0].tell(1, 1)
    assert our_workers() == []


def test_a_role_that_is_none_ends_the_worker() -> None:
    worker = Worker("nonsense")
    try:
        worker.hear()  # ready
        worker.tell(1)
        with pytest.raises(ProbeError, match="ended with code 1"):
            worker.hear()
    finally:
        worker.close()


@pytest.mark.parametrize("name", SMALL)
def test_each_claim_is_measured_and_judged(name: str) -> None:
    claim = claims()[name]
    assert claim.measure is not None
    found = claim.measure(1.0)
    assert found.points
    assert found.method
    assert found.took_s > 0
    for p in found.points:
        assert p.low <= p.value <= p.high
        assert p.n >= 1
        assert p.label in claim.axes.ways
    assert set(found.rig) <= {i.name for i in claim.inputs}
    verdict = judge(claim, found)
    assert verdict.groups
    assert verdict.word != "not tested"
    if not claim.dimensions().right:
        assert verdict.word == "refuted"
    assert our_workers() == []


def test_the_printed_transfer_is_refuted_by_bytes_that_were_sent() -> None:
    claim = claims()["S1-xfer"]
    assert claim.measure is not None
    [group] = judge(claim, claim.measure(1.0)).groups
    assert group.word == "refuted"
    assert group.claim_error < -0.8, (
        "a limiter is never faster than its rate, so the printed eight seconds are out of reach"
    )


def test_medians_and_intervals() -> None:
    point = timed(2.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (point.value, point.low, point.high, point.n) == (3.0, 2.0, 4.0, 5)
    draw = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        mean = mean_of(0.0, draw.exponential(1.0, 400).tolist())
        inside += mean.low <= 1.0 <= mean.high
    assert 180 <= inside <= 200, "a 95 % interval, give or take"
