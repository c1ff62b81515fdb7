"""Times of layers, updates and messages, on a machine whose probes follow simple laws, so that answers are known by hand."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.machine.profile import Machine, Probe
from aiinfra_widgets.workloads import catalog
from aiinfra_widgets.workloads.facts import Layer, conv, elementwise, flatten, linear, loss, perceptron, pool, relu
from aiinfra_widgets.workloads.layer_times import AXES, FRESH_BYTES, WAYS
from aiinfra_widgets.workloads.step_times import StepTimes

BARE = Machine("here", "2026-01-01", 2, 8 * 2**30)
#: Forward seconds of one element, flop or row; backward takes twice that, beside which a call into it is next to nothing.
UNIT_S, STARTUP_S, TINY_S = 1e-6, 7e-6, 1e-6
FRESH_S_PER_BYTE = 3e-10
#: The law of each kind over its axes.
LAWS: dict[str, Callable[..., float]] = {
    "linear": lambda width, batch: width**2 * batch,
    "conv": lambda inputs, outputs, batch: inputs * outputs * batch,
    "conv_wide": lambda inputs, outputs, batch: 2 * inputs * outputs * batch,
    "attention": lambda head_tokens, tokens, head: head_tokens * tokens * head,
    "embedding": lambda rows, width, params: rows * width,
    "interaction": lambda vectors, width, batch: vectors * width * batch,
    "norm": lambda width, elements: 5 * elements,
    "activation": lambda elements: elements,
    "gelu": lambda elements: 2 * elements,
    "add": lambda elements: 3 * elements,
    "elementwise": lambda elements: 4 * elements,
    "pool": lambda elements: 6 * elements,
    "cross_entropy": lambda classes, rows: classes * rows,
    "squared_error": lambda batch: batch,
    "logistic": lambda batch: 8 * batch,
}
#: Two points of each axis; the laws are powers, so that what lies between is met exactly.
POINTS = {"tokens": (16, 1024), "head": (16, 64), "width": (8, 1024), "vectors": (4, 16), "classes": (2, 4096)}


def probe(name: str, seconds: float, **at: Any) -> Probe:
    return Probe(name, at, "s", seconds, seconds * 0.9, seconds * 1.1, 9)


def machine() -> Machine:
    found = [probe("fresh", FRESH_S_PER_BYTE * 2**26, bytes=2**26)]
    for way, layers in itertools.product(WAYS, (1, 9)):
        found.append(
            probe("chain", layers * TINY_S + (STARTUP_S if way == "backward" else 0.0), layers=layers, part=way)
        )
    for name, law in LAWS.items():
        for sizes in itertools.product(*(POINTS.get(axis, (16, 2**21)) for axis in AXES[name])):
            at = dict(zip(AXES[name], sizes, strict=True)) | ({"pixels": 64} if name.startswith("conv") else {})
            found += both_ways(name, law(*sizes) * UNIT_S, at)
    for width, aspect, rows in itertools.product((8, 1024), (1 / 256, 256), (16, 2**21)):
        slower = 3.0 if aspect < 1 else 2.0  # narrow ends cost thrice, wide ones twice
        at = {"width": width, "aspect": aspect, "batch": rows}
        found += both_ways("linear_shape", slower * width**2 * rows * UNIT_S, at)
    for optimizer, passes in (("sgd", 1), ("adamw", 3)):
        sizes = itertools.product((2**8, 2**24), (1, 4))
        found += [probe("update", passes * p * 1e-9, params=p, ranks=n, optimizer=optimizer) for p, n in sizes]
    for name, factor in (("reduce_scatter", 1), ("all_gather", 2), ("all_to_all", 3), ("send", 4)):
        found += [probe(name, factor * b * n * 1e-10, bytes=b, ranks=n) for b in (64, 2**25) for n in (2, 4)]
    found += [probe("shared_cores", s, ranks=n) for n, s in ((1, 0.01), (2, 0.0099), (4, 0.02))]
    found += [probe("lockstep", s, ranks=1, alone_s=s, bytes=512, part="compute") for s in (1e-4, 1e-2)]
    found += [probe("relay", (n / 2) * s + 1e-5, ranks=n, alone_s=s) for n in (2, 4) for s in (1e-4, 1e-2)]
    return BARE.with_probes(found)


def both_ways(name: str, forward_s: float, at: dict[str, Any]) -> list[Probe]:
    return [probe(name, s, part=way, **at) for way, s in (("forward", forward_s), ("backward", 2 * forward_s))]


@pytest.fixture(scope="module")
def times() -> StepTimes:
    return StepTimes(machine())


def layer(kind: Any, size: int, **dims: int) -> Layer:
    return Layer(kind, kind, 0, 0, size, size, dims, True)


ATTENTION = layer("attention", 256 * 64, heads=4, width=64, tokens=256)
LONG = layer("attention", 2048 * 64, heads=2, width=64, tokens=2048)
TABLE = Layer("t", "embedding", 0, 5000, 32, 32 * 64, {"vocab": 2000, "width": 64, "tokens": 32}, False)


@pytest.mark.parametrize(
    ("of", "task", "units"),
    [
        pytest.param(linear("l", 64, 64), None, 64 * 64 * 512, id="linear"),
        pytest.param(linear("l", 64, 64, rows=4), None, 64 * 64 * 2048, id="linear-over-rows"),
        pytest.param(linear("l", 1024, 4), None, 3 * 4096 * 512, id="linear-with-a-narrow-end"),
        pytest.param(linear("l", 4, 1024), None, 2 * 4096 * 512, id="linear-with-a-wide-end"),
        pytest.param(conv("c", 16, 16, 8), None, 16 * 16 * 512, id="conv"),
        pytest.param(conv("c", 16, 16, 4), None, 16 * 16 * 128, id="conv-of-fewer-pixels"),
        pytest.param(conv("c", 64, 64, 8), None, 2 * 64 * 64 * 512, id="conv-of-many-channels"),
        pytest.param(relu("r", 10), None, 10 * 512, id="activation"),
        pytest.param(pool("p", 4, 8), None, 6 * 4 * 64 * 512, id="pool"),
        pytest.param(layer("gelu", 10), None, 2 * 10 * 512, id="gelu"),
        pytest.param(layer("add", 10), None, 3 * 10 * 512, id="add"),
        pytest.param(layer("norm", 10), None, 5 * 10 * 512, id="norm"),
        pytest.param(elementwise("e", 10, 4), None, 4 * 10 * 512, id="elementwise"),
        pytest.param(layer("elementwise", 9, operations=7, elements=3), None, 7 * 4 * 3 * 512, id="several-operations"),
        pytest.param(ATTENTION, None, 512 * 4 * 256 * 256 * 16, id="attention"),
        pytest.param(LONG, None, 512 * 2 * 2048 * 2048 * 32, id="attention-of-a-longer-sequence"),
        pytest.param(layer("interaction", 40, vectors=5, width=8), None, 5 * 8 * 512, id="interaction"),
        pytest.param(loss(10), "classification", 10 * 512, id="cross-entropy"),
        pytest.param(replace(loss(96), dims={"outputs": 96, "rows": 8}), "language", 96 * 8 * 512, id="of-every-token"),
        pytest.param(loss(3), "regression", 3 * 512, id="squared-error"),
        pytest.param(loss(1), "binary", 8 * 512, id="logistic"),
    ],
)
def test_hand_computed_layers(times, of, task, units):
    forward_s, backward_s = times.forward_s([of], 512, task), times.backward_s([of], 512, task)
    for seconds, want in ((forward_s, units * UNIT_S), (backward_s, 2 * units * UNIT_S)):
        assert seconds == pytest.approx(want, rel=1e-3, abs=2 * STARTUP_S)


def test_an_embedding_takes_its_rows_and_has_no_gradient_of_its_input(times):
    assert times.forward_s([TABLE], 64) == pytest.approx(64 * 32 * 64 * UNIT_S)
    assert times.backward_s([replace(TABLE, frozen=True)], 64) == pytest.approx(STARTUP_S)


def test_forward_and_backward_are_all_there_is(times):
    layers = (*perceptron(64, 128, 10)[:-1], flatten(10), loss(10))
    apart = times.forward_s(layers, 256, "classification") + times.backward_s(layers, 256, "classification")
    assert times.forward_backward_s(layers, "classification", 256) == pytest.approx(apart)
    stages = [times.forward_s(part, 256, "classification") for part in (layers[:2], layers[2:])]
    assert times.forward_s(layers, 256, "classification") == pytest.approx(sum(stages))
    calls = [times.backward_s(part, 256, "classification") for part in (layers[:2], layers[2:])]
    assert sum(calls) - times.backward_s(layers, 256, "classification") == pytest.approx(STARTUP_S)  # one call more
    swept = times.backward_s(layers, np.array([16.0, 256.0]), "classification")
    assert swept[1] == pytest.approx(times.backward_s(layers, 256, "classification"))


@pytest.mark.parametrize(
    ("first", "frozen", "share"), [(False, False, 1), (True, False, 0.5), (False, True, 0.5), (True, True, 0)]
)
def test_only_the_gradients_that_are_needed_take_time(times, first, frozen, share):
    whole = times.backward_s([linear("l", 64, 64)], 2048) - STARTUP_S
    asked = replace(linear("l", 64, 64, first=first), frozen=frozen)
    assert times.backward_s([asked], 2048) - STARTUP_S == pytest.approx(share * whole)


def test_nothing_before_the_first_trained_layer_goes_backward(times):
    assert times.backward_s([elementwise("e", 1000, 1000, first=True)], 64) == pytest.approx(STARTUP_S)


def test_tensors_that_are_too_large_to_be_kept_need_new_pages(times):
    elements = FRESH_BYTES // 4
    below, at = (float(times.forward_s([relu("r", n)], 1)) for n in (elements - 1, elements))
    assert at - below == pytest.approx(FRESH_BYTES * FRESH_S_PER_BYTE, rel=1e-3)
    both = times.forward_s([relu("r", 1)], np.array([1.0, float(elements)]))
    assert both == pytest.approx([UNIT_S, at])


def test_an_unknown_kind_or_task_is_refused_by_name(times):
    with pytest.raises(ModelInputError, match=r"layer 'fold': no time is known for the kind 'fold'; known: linear, "):
        times.forward_s([layer("fold", 10)], 8)
    with pytest.raises(ModelInputError, match="which loss it is depends on the task, got None"):
        times.forward_s([loss(10)], 8)


@pytest.mark.parametrize(
    ("of", "missing"),
    [
        pytest.param(lambda t: t.forward_s([linear("l", 64, 64)], 8), "linear", id="linear"),
        pytest.param(lambda t: t.backward_s([relu("r", 8)], 8), "chain", id="backward"),
        pytest.param(lambda t: t.forward_s([ATTENTION], 8), "attention", id="attention"),
        pytest.param(lambda t: t.update_s(100, 1, "adamw"), "update", id="update"),
        pytest.param(lambda t: t.send_s(100, 2), "send", id="send"),
        pytest.param(lambda t: t.reduce_scatter_s(100, 2), "reduce_scatter", id="reduce-scatter"),
        pytest.param(lambda t: t.shared_core_factor(2), "shared_cores", id="shared-cores"),
    ],
)
def test_an_older_profile_asks_to_calibrate_again(of, missing):
    old = [
        probe("linear", 1e-5, width=64, batch=64),
        probe("chain", 1e-5, layers=1),
        probe("update", 1e-5, params=9, ranks=1),
    ]
    with pytest.raises(ModelInputError, match=f"holds no '{missing}' probe.*; run: aiinfra calibrate"):
        of(StepTimes(BARE.with_probes(old)))


def test_handing_over_costs_what_the_relay_took_beyond_its_arithmetic(times):
    message_s = times.send_s(2**16, 2)
    assert times.hand_over_s(1e-2, 2**16, 2) == pytest.approx(1e-5 + message_s, rel=1e-3)
    # Four ranks on two cores: the one that waits takes turns with those that compute.
    assert times.hand_over_s(1e-2, 2**16, 4) == pytest.approx(1e-2 + 1e-5 + times.send_s(2**16, 4), rel=1e-3)
    assert times.hand_over_s(np.array([1e-4, 1e-2]), 2**16, 4).shape == (2,)


def test_updates_and_messages(times):
    assert times.update_s(2**20, 1) == pytest.approx(2**20 * 1e-9)
    assert times.update_s(2**20, 4, "adamw") == pytest.approx(3 * 2**20 * 1e-9)
    for factor, seconds in enumerate((times.reduce_scatter_s, times.all_gather_s, times.all_to_all_s, times.send_s), 1):
        assert seconds(2**16, 4) == pytest.approx(factor * 4 * 2**16 * 1e-10)
        assert seconds(2**16, 1) == 0.0
        assert seconds(0, 2) >= 0.0
        assert seconds(np.array([2**10, 2**16]), 2) == pytest.approx(factor * 2 * np.array([2**10, 2**16]) * 1e-10)


def test_arithmetic_takes_longer_on_more_ranks_than_cores(times):
    assert times.shared_core_factor(np.array([1, 2, 4, 8])) == pytest.approx([1.0, 1.0, 2.0, 4.0], rel=0.05)


#: Goes through every probe of one rank once, as calibration does again and again.
PROBING = """
import json
from mpi4py import MPI
from aiinfra_widgets.experiments.calibration.measure_layers import layer_probes
for probe in layer_probes():
    for part, seconds in zip(probe.parts, probe.setup(MPI.COMM_SELF)(), strict=True):
        print(json.dumps([probe.name, {**probe.at, **({"part": part} if part else {})}, seconds]))
"""


def test_the_probes_of_layers_are_all_that_the_workloads_need():
    done = subprocess.run([sys.executable, "-c", PROBING], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    here = BARE.with_probes([probe(name, seconds, **at) for name, at, seconds in found])
    assert len({(p.name, json.dumps(p.at)) for p in here.probes}) == len(here.probes) == len(found)
    times = StepTimes(here)
    for name in catalog.names():
        facts = catalog.facts(name)
        for seconds in (times.forward_s, times.backward_s):
            few_and_many = seconds(facts.layers(), np.array([2.0, 2048.0]), facts.task)
            assert np.all(np.isfinite(few_and_many) & (few_and_many > 0)), name
