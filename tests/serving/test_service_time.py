"""How long a server takes, on a machine whose probes follow simple laws, so that answers are known by hand."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.experiments.serving.service_time import BAND_FRAC, service_time
from aiinfra_widgets.experiments.serving.spec import ServingSpec
from aiinfra_widgets.machine.profile import Machine, Probe
from aiinfra_widgets.workloads import catalog
from aiinfra_widgets.workloads.calibrated import AnswerTimes
from aiinfra_widgets.workloads.facts import small_cnn
from aiinfra_widgets.workloads.gpt_facts import gpt_facts

BARE = Machine("here", "2026-01-01", 2, 8 * 2**30)
US = 1e-6
#: Seconds of one operation, whatever its size, and what tiny nets take beyond theirs.
CONV_S, LINEAR_S, RELU_S, GELU_S, NORM_S, POOL_S = 30 * US, 10 * US, 1 * US, 2 * US, 4 * US, 5 * US
DECODE_S, PREFILL_S, BLOCK_S, ONCE_S, CALLS_S, PAUSE_S = 20 * US, 50 * US, 7 * US, 60 * US, 11 * US, 40 * US


def spec(**values: Any) -> ServingSpec:
    return ServingSpec.make(values)


def probe(name: str, seconds: float, **at: Any) -> Probe:
    return Probe(name, at, "s", seconds, seconds * 0.9, seconds * 1.2, 9)


def machine(linear: Any = lambda width, batch: LINEAR_S) -> Machine:
    """Every operation takes the same time at every size; a linear layer takes what `linear` says."""
    found = [probe("linear_forward", linear(w, b), width=w, batch=b) for w in (64, 512) for b in (1, 16, 256)]
    for inputs, outputs, batch in itertools.product((1, 32), (8, 32), (1, 64)):
        found.append(probe("conv_forward", CONV_S, inputs=inputs, outputs=outputs, pixels=64, batch=batch))
    for kind, seconds in (("activation", RELU_S), ("gelu", GELU_S), ("norm", NORM_S), ("pool", POOL_S)):
        found += [probe(f"{kind}_forward", seconds, elements=n) for n in (64, 2**18)]
    for n in (6, 192):
        found += [probe("decode_attention", DECODE_S, sequence_heads=n, cached=c) for c in (16, 256)]
        found += [probe("prefill_attention", PREFILL_S, sequence_heads=n, tokens=t) for t in (4, 128)]
    for rest_s, more_s in ((0.0, 0.0), (1e-3, PAUSE_S)):
        for batch in (1, 8):
            tiny = 2 * CONV_S + 2 * RELU_S + POOL_S + linear(math.sqrt(8 * 16 * 10), batch) + CALLS_S + more_s * batch
            found.append(probe("classify", tiny, channels=[1, 8, 8], pixels=64, batch=batch, rest_s=rest_s))
        block = 4 * linear(64, 1) + 2 * NORM_S + 2 * RELU_S + GELU_S + DECODE_S + BLOCK_S
        for blocks in (1, 5):
            at = {"blocks": blocks, "width": 12, "heads": 6, "cached": 16, "rest_s": rest_s}
            found.append(probe("decode", ONCE_S + blocks * block + more_s, **at))
    return BARE.with_probes(found)


# --- synthetic --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scv", [0.0, 0.25, 1.0, 4.0])
def test_a_synthetic_service_takes_what_was_asked_for_on_any_machine(scv):
    found = service_time(spec(mean_service_s=0.03, service_scv=scv), BARE)
    assert (found.low_s, found.high_s, found.scv, found.pause_s) == (0.03, 0.03, scv, 0.0)
    assert found.mean_s == found.base_s == found.batch_s[0] == pytest.approx(0.03, rel=1e-12)
    assert found.per_item_s == 0


@pytest.mark.parametrize("batching", ["fixed", "dynamic"])
def test_a_synthetic_batch_takes_as_long_as_its_largest(batching):
    found = service_time(spec(mean_service_s=0.02, batching=batching, max_batch=8), BARE)
    harmonic = np.cumsum(1 / np.arange(1, 9))  # the largest of b exponentials: mean H_b, variance the sum of 1/k^2
    squares = np.cumsum(1 / np.arange(1, 9) ** 2)
    assert found.batch_s == pytest.approx(0.02 * harmonic, rel=0.02)
    assert found.batch_scv == pytest.approx(squares / harmonic**2, rel=0.06)
    even = service_time(spec(mean_service_s=0.02, service_scv=0.0, batching=batching, max_batch=8), BARE)
    assert even.batch_s == pytest.approx(np.full(8, 0.02), rel=1e-12)
    assert even.base_s + 8 * even.per_item_s == pytest.approx(0.02)
    assert even.batch_scv == pytest.approx(np.zeros(8), abs=1e-12)
    assert even.per_item_s >= 0


def test_the_largest_of_a_batch_grows_with_variability():
    of_eight = [
        service_time(spec(service_scv=scv, batching="fixed", max_batch=8), BARE).batch_s[-1] for scv in (0, 0.3, 1, 5)
    ]
    assert of_eight == sorted(of_eight)


# --- the nets ---------------------------------------------------------------------------------------------------------
def test_a_picture_takes_its_operations_and_the_calls():
    found = service_time(spec(service="digits-cnn"), machine())
    want = 2 * CONV_S + 2 * RELU_S + POOL_S + LINEAR_S + CALLS_S
    assert found.mean_s == pytest.approx(want)
    assert found.scv == 0
    assert found.low_s == pytest.approx(0.9 * want * (1 - BAND_FRAC))
    assert found.high_s == pytest.approx(1.2 * want * (1 + BAND_FRAC))
    assert found.pause_s == pytest.approx(PAUSE_S)
    together = service_time(spec(service="digits-cnn", batching="fixed", max_batch=20), machine())
    assert together.batch_s == pytest.approx(np.full(20, want))
    assert together.pause_s == pytest.approx(8 * PAUSE_S)  # of the largest batch that was probed


def test_tokens_take_their_operations_and_the_prompt_gives_the_first():
    block = 4 * LINEAR_S + 2 * NORM_S + 2 * RELU_S + GELU_S + BLOCK_S
    step = ONCE_S + LINEAR_S + 4 * (block + DECODE_S)
    prefill = ONCE_S + LINEAR_S + 4 * (block + PREFILL_S)
    times = AnswerTimes(machine())
    assert times.decode_s(gpt_facts("gpt-tiny"), 3, 40) == pytest.approx(step)
    assert times.prefill_s(gpt_facts("gpt-tiny"), 3, 40) == pytest.approx(prefill)
    asked = {"service": "gpt-tiny", "service_scv": 0.0, "new_tokens": 12, "max_batch": 4}
    alone = service_time(spec(**asked), machine())
    assert alone.mean_s == pytest.approx(prefill + 11 * step)
    assert alone.scv == pytest.approx(0, abs=1e-9)
    together = service_time(spec(**asked, batching="fixed"), machine())
    assert together.batch_s == pytest.approx(np.full(4, prefill + 11 * step))
    joined = service_time(spec(**asked, batching="continuous"), machine())
    assert joined.batch_s == pytest.approx(np.arange(1, 5) * prefill + 11 * step)
    assert (joined.base_s, joined.per_item_s) == pytest.approx((11 * step, prefill))


def test_answers_that_do_not_fit_the_context_are_cut():
    asked = {"service": "gpt-tiny", "service_scv": 50.0, "new_tokens": 128, "prompt_tokens": 128}
    found = service_time(spec(**asked), machine())
    step = AnswerTimes(machine()).decode_s(gpt_facts("gpt-tiny"), 1, 200)
    assert found.mean_s < 128 * step
    assert 0 < found.scv < 50


def test_work_in_proportion_to_the_batch_is_a_line_through_nothing():
    proportional = machine(lambda width, batch: 1e-9 * width * batch)
    facts = gpt_facts("gpt-tiny")
    times = AnswerTimes(proportional)
    one, two, four = (float(times.decode_s(facts, b, 40)) for b in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one))
    # Within a block 4 linear layers of D sqrt(3), D, 2 D and 2 D; the head is sqrt(D V) wide.
    assert two - one == pytest.approx(1e-9 * (4 * 192 * (math.sqrt(3) + 5) + math.sqrt(192 * 256)))
    pictures = service_time(spec(service="digits-cnn", batching="dynamic", max_batch=16), proportional)
    assert pictures.per_item_s == pytest.approx(1e-9 * math.sqrt(512 * 10))
    assert pictures.base_s + 16 * pictures.per_item_s == pytest.approx(pictures.batch_s[-1])


@pytest.mark.parametrize("service", ["digits-cnn", "gpt-tiny"])
def test_a_machine_that_is_not_calibrated_is_refused(service):
    with pytest.raises(ModelInputError, match="run: aiinfra calibrate"):
        service_time(spec(service=service), BARE)
    old = BARE.with_probes([probe("linear", 1e-5, width=64, batch=16)])  # made before answering was probed
    with pytest.raises(ModelInputError, match=r"probe.*; run: aiinfra calibrate"):
        service_time(spec(service=service), old)


def test_the_tiny_net_of_the_probe_has_the_operations_of_the_real_one():
    tiny, real = small_cnn((1, 8, 8)), catalog.facts("digits-cnn").layers()
    assert [layer.kind for layer in tiny] == [layer.kind for layer in real]


#: Goes through every probe of answering twice, as calibration does, but alone: it needs no other rank.
PROBING = """
import json
from mpi4py import MPI
from aiinfra_widgets.experiments.calibration.measure_forward import forward_probes
for probe in forward_probes():
    once = probe.setup(MPI.COMM_SELF)
    once()
    (seconds,) = once()
    print(json.dumps([probe.name, dict(probe.at), seconds]))
"""


def test_the_probes_of_calibration_are_all_that_a_prediction_needs():
    done = subprocess.run([sys.executable, "-c", PROBING], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    here = BARE.with_probes([probe(name, seconds, **at) for name, at, seconds in found])
    assert len({(p.name, json.dumps(p.at)) for p in here.probes}) == len(here.probes) == len(found)
    for service, batching in (("digits-cnn", "dynamic"), ("gpt-tiny", "fixed"), ("gpt-tiny", "continuous")):
        told = service_time(spec(service=service, batching=batching, max_batch=64, service_scv=0.0), here)
        assert 0 < told.low_s < told.mean_s < told.high_s
        assert len(told.batch_s) == 64
        assert np.all(np.isfinite(told.batch_s) & (told.batch_s > 0))
        assert told.pause_s >= 0
