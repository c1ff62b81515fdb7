"""Really trains on one and on two MPI ranks, by the training experiment, and reads the step times from the run's files."""

from __future__ import annotations

import time

import numpy as np

from ..errors import LabError, ProbeError
from ..experiment import experiment
from ..launch.schedule import ask_all, parse_changes
from ..launch.session import Session, watch
from ..runs.reader import RunReader
from .claim import Curve, Evidence, Measurement
from .rig import Clock

STEPS, CHANGE_AT = 120, 50
#: Starting ranks may take longer than a budget, and much longer on a busy machine; then it is stopped.
LEAST_S = 60
#: Nodes up to which the model is drawn.
MOST_NODES = 8


def measure_speedup(budget_s: float) -> Evidence:
    """Train on one node, then on two, and return the speed-up.

    Args:
        budget_s: Seconds after which the run is stopped, with whatever it has measured; at least LEAST_S, for starting ranks takes some.

    Raises:
        ProbeError: No settled segment of one and of two nodes within the time.
    """
    clock, session = Clock(), Session()
    exp = experiment("training")
    spec = exp.spec.make({"nodes": 1, "steps": STEPS})
    try:
        reader = session.launch("training", spec, room=2, note="claims lab: one and two nodes")
        ask_all(session, reader, parse_changes(exp, spec, [f"step={CHANGE_AT} nodes=2"]))
        end = time.monotonic() + max(budget_s, LEAST_S)
        for now in watch(reader, until=lambda s: s.final or time.monotonic() > end):
            last = now
        if not last.final:
            session.stop(reader)
    finally:
        session.close()
    points = _points(reader)
    curve = _model(reader)
    known = "the calibrated one" if curve else "Amdahl's law, because this machine is not calibrated"
    method = (
        "digits-cnn, 256 samples a step, on one and on two MPI ranks of this machine: median step times of the segments of run "
        f"{reader.run.id}. The model is {known}."
    )
    return clock.evidence(points, {"single_s": 1.0, "serial_frac": 0.05}, method, curve)


def _points(reader: RunReader) -> list[Measurement]:
    found = {
        s.spec.nodes: s.values["step_time_s"]
        for s in reader.segments()
        if not s.transient and "step_time_s" in s.values
    }
    if not {1, 2} <= set(found):
        raise ProbeError(
            f"run {reader.run.id} has no settled segment of one and of two nodes (settled: {sorted(found) or 'none'}); "
            "give it more time, and see the run with: aiinfra watch last"
        )
    one = found[1]
    points = []
    for nodes, value in sorted(found.items()):
        low, high = (one.value / (v or value.value) for v in (value.high, value.low))
        points.append(Measurement(float(nodes), one.value / value.value, low, high, value.n or 0, judged=nodes > 1))
    return points


def _model(reader: RunReader) -> Curve | None:
    """Return the calibrated model's speed-up over nodes, None where this machine was not calibrated."""
    nodes = np.arange(1, MOST_NODES + 1)
    try:
        found = reader.experiment.predict(reader.asked, reader.machine, nodes=nodes).values["step_time_s"]
    except LabError:
        return None
    # The band of a ratio: numerator and denominator drift together, so only the denominator's own band is taken.
    value, low, high = (np.asarray(found.value[0] / v) for v in (found.value, found.high, found.low))
    columns = [tuple(float(x) for x in v) for v in (nodes, value, low, high)]
    return Curve(columns[0], columns[1], columns[2], columns[3], "Calibrated model")
