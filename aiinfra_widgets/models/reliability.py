"""What failures cost a long job: mean time between them at scale, checkpoints, goodput, spare nodes.

Failures come one by one, independently, at a constant rate (exponential gaps). A job that every failure stops works in
segments: `interval_s` of work, then a checkpoint. A failure costs the time to notice it, the time to start again from
the last checkpoint, and the work since then. Restarting may fail too; nothing fails while a failure goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._check import Number, magnitude, need

_HALVINGS = 60  # of an interval of width one: to the last bit of a float


@dataclass(frozen=True, slots=True)
class Goodput:
    """Where the wall time of a long job goes; the five shares add up to 1.

    Attributes:
        training_goodput_frac: Useful work.
        checkpoint_frac: Writing checkpoints that were kept.
        lost_frac: Work and checkpoints that a failure undid.
        restart_frac: Starting again, failed starts included.
        detection_frac: Standing still, the failure unnoticed.
        failures_per_s: Failures per second of wall time.
    """

    training_goodput_frac: Any
    checkpoint_frac: Any
    lost_frac: Any
    restart_frac: Any
    detection_frac: Any
    failures_per_s: Any

    @property
    def waste_frac(self) -> Any:
        """All that is not useful work."""
        return 1 - self.training_goodput_frac


def component_mtbf_s(num_failures: Number, num_components: Number, time_s: Number) -> Number:
    """Return the mean time between failures of one component, from a count of failures.

    Args:
        num_failures: Counted, above 0.
        num_components: That ran, at least 1.
        time_s: For which they ran.

    Raises:
        ModelInputError: No failure, no component, or no time.

    Valid when: the rate is constant (neither infant mortality nor wear). Off by: 1/sqrt(num_failures), relative.
    Source: maximum likelihood of an exponential law.
    """
    need("num_failures", num_failures, above=True, hint="without a failure there is only a lower bound")
    need("num_components", num_components, 1)
    need("time_s", time_s, above=True)
    return num_components * time_s / num_failures


def system_mtbf_s(components: Iterable[tuple[Number, Number]]) -> Any:
    """Return the mean time between failures of a job that any failing component stops.

    Args:
        components: Pairs of (how many, mean time between failures of one in seconds); arrays broadcast. With none, or
            with counts of 0, nothing ever fails: infinity.

    Raises:
        ModelInputError: A negative count, a time that is not positive.

    Valid when: components fail independently. Off by: too low where one cause stops several at once (they count twice).
    Source: rates of independent Poisson processes add.
    """
    rate: Any = 0.0
    for count, mtbf in components:
        need("num_components", count)
        need("mtbf_s", mtbf, above=True, infinite=True)
        rate = rate + count / mtbf
    if not np.any(magnitude(rate)):
        return np.full(np.shape(magnitude(rate)), np.inf)[()]
    with np.errstate(divide="ignore"):
        return 1 / rate


def survival_probability(time_s: Number, mtbf_s: Number) -> Any:
    """Return the probability that nothing fails for `time_s`.

    Raises:
        ModelInputError: A negative time, a mtbf that is not positive.

    Valid when: constant rate. Off by: too low for parts that have survived their first weeks. Source: exponential law.
    """
    need("time_s", time_s)
    need("mtbf_s", mtbf_s, above=True, infinite=True)
    return np.exp(-(time_s / mtbf_s))


def young_interval_s(checkpoint_cost_s: Number, mtbf_s: Number) -> Any:
    """Return Young's interval between checkpoints, sqrt(2 C M), in seconds of work.

    Args:
        checkpoint_cost_s: Time C for which a checkpoint stops the work, above 0.
        mtbf_s: Of the whole job, M.

    Raises:
        ModelInputError: A time that is not positive.

    Valid when: C is far below M. Off by: too long, by C to first order (see `daly_interval_s`).
    Source: Young 1974 (CACM 17-9).
    """
    _need_cost(checkpoint_cost_s, mtbf_s)
    return (2 * checkpoint_cost_s * mtbf_s) ** 0.5


def daly_first_order_interval_s(checkpoint_cost_s: Number, mtbf_s: Number, restart_time_s: Number = 0.0) -> Any:
    """Return Daly's interval of first order, sqrt(2 C (M + R)) - C, in seconds of work; 0 where C is larger than that.

    Arguments and errors as `young_interval_s`; restart_time_s R at least 0.

    Valid when: C is below half of M. Off by: a few percent there, then quickly more.
    Source: Daly 2006 (FGCS 22-3), equation 9.
    """
    _need_cost(checkpoint_cost_s, mtbf_s)
    need("restart_time_s", restart_time_s)
    return np.maximum((2 * checkpoint_cost_s * (mtbf_s + restart_time_s)) ** 0.5 - checkpoint_cost_s, 0 * mtbf_s)


def daly_interval_s(checkpoint_cost_s: Number, mtbf_s: Number) -> Any:
    """Return Daly's interval of higher order, in seconds of work; M itself where C reaches 2 M.

    Arguments and errors as `young_interval_s`.

    Valid when: any C; the restart time does not matter at this order. Off by: below 0.5 % in time to finish up to C = M.
    Source: Daly 2006, equation 37.
    """
    _need_cost(checkpoint_cost_s, mtbf_s)
    half = checkpoint_cost_s / (2 * mtbf_s)
    series = (2 * checkpoint_cost_s * mtbf_s) ** 0.5 * (1 + half**0.5 / 3 + half / 9) - checkpoint_cost_s
    return np.where(magnitude(half) < 1, series, mtbf_s + 0 * series)[()]


def optimal_interval_s(checkpoint_cost_s: Number, mtbf_s: Number) -> Any:
    """Return the interval that makes `expected_time_s` least, in seconds of work: the x with 1 - x = exp(-x - C/M), times M.

    Arguments and errors as `young_interval_s`.

    Valid when: exponential failures, any C. Off by: exact, to the last bits of a float.
    Source: derivative of Daly 2006, equation 20 (his equation 37 is its series).
    """
    _need_cost(checkpoint_cost_s, mtbf_s)
    cost = checkpoint_cost_s / mtbf_s
    low, high = np.zeros(np.shape(magnitude(cost))), np.ones(np.shape(magnitude(cost)))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = 1 - middle > np.exp(-middle - magnitude(cost))
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return ((low + high) / 2)[()] * mtbf_s


def expected_time_s(
    work_s: Number,
    interval_s: Number,
    checkpoint_cost_s: Number,
    mtbf_s: Number,
    restart_time_s: Number = 0.0,
    detection_time_s: Number = 0.0,
) -> Any:
    """Return the expected wall time to finish `work_s` seconds of work, in seconds.

    Args:
        work_s: Time without failures and checkpoints.
        interval_s: Work between two checkpoints; the last stretch may be shorter, and ends with a checkpoint as well.
        checkpoint_cost_s: Time for which a checkpoint stops the work, at least 0.
        mtbf_s: Of the whole job; infinite for a machine that never fails.
        restart_time_s: From the decision to restart until work goes on from the last checkpoint.
        detection_time_s: From the failure to that decision; nothing fails meanwhile.

    Raises:
        ModelInputError: A negative time, an interval or mtbf that is not positive.

    Valid when: exponential failures, a single job. Off by: too low where no spare node is at hand (see `spare_nodes`).
    Source: renewal argument, as Daly 2006 equation 20; with the time to detect, Bougeret et al. 2011 (SC11), theorem 1:
        exp(R/M) (M + D) (exp((interval + C)/M) - 1) for each segment.
    """
    need("work_s", work_s)
    need("interval_s", interval_s, above=True)
    _need_times(checkpoint_cost_s, mtbf_s, restart_time_s, detection_time_s)
    whole = np.floor(magnitude(work_s) / magnitude(interval_s) * (1 + 1e-12))
    rest = np.maximum(work_s - whole * interval_s, 0 * interval_s)
    tail = np.where(magnitude(rest) > 1e-9 * magnitude(interval_s), 1.0, 0.0)
    late = (mtbf_s, restart_time_s, detection_time_s)
    full = _segment_s(interval_s + checkpoint_cost_s, *late)
    return whole * full + tail * _segment_s(rest + checkpoint_cost_s, *late)


def goodput(
    interval_s: Number,
    checkpoint_cost_s: Number,
    mtbf_s: Number,
    restart_time_s: Number = 0.0,
    detection_time_s: Number = 0.0,
) -> Goodput:
    """Return where the wall time goes in the long run.

    Arguments, errors, domain and source as `expected_time_s`.

    Off by: too high where stragglers, evaluation or planned stops cost time too.
    """
    need("interval_s", interval_s, above=True)
    _need_times(checkpoint_cost_s, mtbf_s, restart_time_s, detection_time_s)
    stretch = interval_s + checkpoint_cost_s
    total = _segment_s(stretch, mtbf_s, restart_time_s, detection_time_s)
    undone = _tries(stretch, mtbf_s)  # expected failures while working, per segment
    again = _tries(restart_time_s, mtbf_s)  # and while restarting, per restart
    return Goodput(
        training_goodput_frac=interval_s / total,
        checkpoint_frac=checkpoint_cost_s / total,
        lost_frac=(_busy_s(stretch, mtbf_s) - stretch) / total,
        restart_frac=undone * _busy_s(restart_time_s, mtbf_s) / total,
        detection_frac=undone * (1 + again) * detection_time_s / total,
        failures_per_s=undone * (1 + again) / total,
    )


def goodput_in_place(
    interval_s: Number,
    checkpoint_cost_s: Number,
    mtbf_s: Number,
    takeover_time_s: Number = 0.0,
    detection_time_s: Number = 0.0,
) -> Goodput:
    """Return where the wall time goes in the long run if survivors hold the state, and go on from where they are.

    Args:
        interval_s, checkpoint_cost_s, mtbf_s, detection_time_s: As `expected_time_s`. Checkpoints guard against the loss of all.
        takeover_time_s: From the decision until the survivors work; a failure meanwhile begins it anew.

    Raises:
        ModelInputError: As `expected_time_s`.

    Valid when: exponential failures, never of all who hold the same state; a failure stops work, but undoes no checkpoint.
    Off by: too high by the step under way, which is done again; and where the node is missed until it is replaced.
    Source: as `goodput`, with nothing of a segment to be done again.
    """
    need("interval_s", interval_s, above=True)
    _need_times(checkpoint_cost_s, mtbf_s, takeover_time_s, detection_time_s)
    rate = 1 / mtbf_s
    struck = rate * (1 + _tries(takeover_time_s, mtbf_s))  # failures per second of work or checkpoint
    busy, noticed = rate * _busy_s(takeover_time_s, mtbf_s), struck * detection_time_s
    total = 1 + busy + noticed
    working = interval_s / (interval_s + checkpoint_cost_s) / total
    return Goodput(
        training_goodput_frac=working,
        checkpoint_frac=1 / total - working,
        lost_frac=0 * working,
        restart_frac=busy / total,
        detection_frac=noticed / total,
        failures_per_s=struck / total,
    )


def nodes_in_repair(num_nodes: Number, node_mtbf_s: Number, repair_time_s: Number) -> Any:
    """Return how many nodes are in repair on the average, while `num_nodes` work.

    Args:
        num_nodes: That the job needs, at least 1.
        node_mtbf_s: Of one node.
        repair_time_s: From failure until the node is back among the spares.

    Raises:
        ModelInputError: No node, a time below zero.

    Valid when: a failed node is replaced at once. Off by: too high while the job waits for a node. Source: Little 1961.
    """
    need("num_nodes", num_nodes, 1)
    need("node_mtbf_s", node_mtbf_s, above=True, infinite=True)
    need("repair_time_s", repair_time_s)
    return num_nodes * (repair_time_s / node_mtbf_s)


def spare_nodes(num_nodes: Number, node_mtbf_s: Number, repair_time_s: Number, confidence_frac: Number = 0.99) -> Any:
    """Return how many spare nodes suffice so that, with that confidence, none is missing at a given moment.

    Arguments and errors as `nodes_in_repair`; confidence_frac from 0 to 0.999999.

    Valid when: repairs do not queue for hands. Off by: too low where one cause breaks several nodes.
    Source: nodes in repair are Poisson (M/G/infinity, Palm 1943; Barlow & Proschan 1975).
    """
    need("confidence_frac", confidence_frac, 0, 1 - 1e-6)
    mean = np.atleast_1d(magnitude(nodes_in_repair(num_nodes, node_mtbf_s, repair_time_s)))
    mean, wanted = np.broadcast_arrays(mean, np.atleast_1d(magnitude(confidence_frac)))
    spares = np.zeros(mean.shape)
    log_term = -mean  # log of the Poisson probability of `k`, which does not underflow for large means
    reached = np.exp(log_term)
    k = 0
    while np.any(missing := reached < wanted):
        k += 1
        spares = np.where(missing, k, spares)
        with np.errstate(divide="ignore"):
            log_term = log_term + np.log(mean) - np.log(k)
        reached = reached + np.exp(log_term)
    shape = np.broadcast_shapes(
        *(np.shape(magnitude(x)) for x in (num_nodes, node_mtbf_s, repair_time_s, confidence_frac))
    )
    return spares.reshape(shape)[()]


def _need_cost(checkpoint_cost_s: Number, mtbf_s: Number) -> None:
    need("checkpoint_cost_s", checkpoint_cost_s, above=True, hint="a free checkpoint would be written all the time")
    need("mtbf_s", mtbf_s, above=True, hint="a job that never fails needs no checkpoint")


def _need_times(checkpoint_cost_s: Number, mtbf_s: Number, restart_time_s: Number, detection_time_s: Number) -> None:
    need("checkpoint_cost_s", checkpoint_cost_s)
    need("mtbf_s", mtbf_s, above=True, infinite=True)
    need("restart_time_s", restart_time_s)
    need("detection_time_s", detection_time_s)


def _tries(time_s: Number, mtbf_s: Number) -> Any:
    """Expected failures before `time_s` passes without one."""
    with np.errstate(over="ignore"):
        return np.expm1(time_s / mtbf_s)


def _busy_s(time_s: Number, mtbf_s: Number) -> Any:
    """Expected time spent trying until `time_s` passes without a failure: M (exp(t/M) - 1), t for infinite M."""
    ratio = magnitude(time_s / mtbf_s)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        factor = np.where(ratio > 0, np.expm1(ratio) / np.where(ratio > 0, ratio, 1.0), 1.0)
    return time_s * factor[()]


def _segment_s(stretch_s: Number, mtbf_s: Number, restart_time_s: Number, detection_time_s: Number) -> Any:
    """Expected wall time of one segment: tries, and for each failure its detection and its restart."""
    failures = _tries(stretch_s, mtbf_s)
    restart = _busy_s(restart_time_s, mtbf_s) + _tries(restart_time_s, mtbf_s) * detection_time_s
    return _busy_s(stretch_s, mtbf_s) + failures * (detection_time_s + restart)
