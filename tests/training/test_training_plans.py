"""The prediction of a step under any plan: parts, memory, bytes and bars, on a machine whose probes follow simple laws."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import AdmissionError, ModelInputError, SpecError
from aiinfra_widgets.experiments.training import Training
from aiinfra_widgets.experiments.training.predict_calls import SLEEP_OVERHEAD_S
from aiinfra_widgets.experiments.training.spec import TrainingSpec
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.models.kinds import BACKWARD, FORWARD
from aiinfra_widgets.models.schedules import bubble_frac
from aiinfra_widgets.quantities import Prediction
from aiinfra_widgets.workloads import catalog
from tests.training.made_up_machine import BYTES_PER_S, LATENCY_S, MEMORY_BYTES_PER_S, machine

TP, PP, SPREAD = {"nodes": 2, "tp_size": 2}, {"nodes": 2, "pp_size": 2, "num_microbatches": 4}, {"nodes": 2}
PLANS: dict[str, dict[str, Any]] = {
    "tp": TP,
    "gpipe": {**PP, "schedule": "gpipe"},
    "1f1b": PP,
    "interleaved": {**PP, "schedule": "interleaved", "chunks": 2},
    "zero1": {**SPREAD, "zero_stage": 1},
    "zero2": {**SPREAD, "zero_stage": 2},
    "zero3": {**SPREAD, "zero_stage": 3},
    "cp": {**SPREAD, "cp_size": 2},
    "sequence": {**TP, "sequence_parallel": True},
    "tp-dp": {**TP, "nodes": 4},
    "pp-dp": {**PP, "nodes": 4},
    "all": {"nodes": 8, "tp_size": 2, "pp_size": 2, "num_microbatches": 4, "zero_stage": 3},
    "accumulate": {**SPREAD, "num_microbatches": 4},
    "recompute": {"recompute": True},
    "fp16": {**SPREAD, "compression": "fp16"},
    "top-k": {**SPREAD, "compression": "top-k"},
    "powersgd": {**SPREAD, "compression": "powersgd"},
    "local": {**SPREAD, "average_every": 8},
}
DENSE = {"workload": "synthetic", "width": 512, "depth": 4, "global_batch": 256}
WORDS = {"workload": "gpt-char", "global_batch": 32}


def predict(values: dict[str, Any], at: Machine | None = None, **over: Any) -> Prediction:
    return Training().predict(TrainingSpec.make(values), at or machine(), **over)


def by_rank(found: Prediction) -> dict[int, list[tuple[int, float, float]]]:
    bars = found.extra["operations"]
    rows: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for rank, kind, start_s, end_s in zip(*(bars[c] for c in ("rank", "kind", "start_s", "end_s")), strict=True):
        rows[rank].append((kind, start_s, end_s))
    return rows


@pytest.mark.parametrize(
    "workload", ["synthetic", "digits-cnn", "gpt-char", "digits-resnet", "clicks-dlrm", "heat-pinn"]
)
@pytest.mark.parametrize("plan", PLANS)
def test_the_parts_add_up_and_every_rank_has_its_bars(workload, plan):
    values = {"workload": workload, "global_batch": 64, **PLANS[plan]}
    uncut = (plan, workload) in {("interleaved", "heat-pinn"), ("all", "digits-cnn")}
    if uncut or (plan in {"cp", "sequence"} and workload != "gpt-char"):
        with pytest.raises(ModelInputError if uncut else SpecError, match="use"):
            predict(values)
        return
    spec, found = TrainingSpec.make(values), predict(values)
    assert sum(found[part] for part in Training.parts) == pytest.approx(found["step_time_s"])
    assert all(found[part] >= 0 for part in Training.parts)
    assert found["samples_per_s"] == pytest.approx(64 / found["step_time_s"])
    rows = by_rank(found)
    assert sorted(rows) == list(range(spec.nodes))
    for bars in rows.values():
        passes = spec.num_microbatches * spec.chunks
        assert [sum(kind == k for kind, *_ in bars) for k in (FORWARD, BACKWARD)] == [passes, passes]
        assert all(a[2] == pytest.approx(b[1]) for a, b in pairwise(bars))
        assert bars[-1][2] <= found["step_time_s"] * (1 + 1e-9)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("m", [1, 4, 16])
def test_the_bubble_of_equal_stages_is_that_of_the_formula(schedule, m):
    found = predict({**DENSE, "depth": 16, "global_batch": 1024, **PP, "schedule": schedule, "num_microbatches": m})
    passes = found["step_time_s"] - found["exposed_comm_time_s"] - found["runtime_time_s"]
    assert found["bubble_time_s"] / passes == pytest.approx(bubble_frac(schedule, 2, m), abs=0.03)


def test_recomputation_costs_most_of_one_more_forward_pass():
    plain, again = (predict({**WORDS, "width": 128, "recompute": r})["compute_time_s"] for r in (False, True))
    assert 1.15 * plain < again < 4 / 3 * plain
    # A dense layer by itself is not computed again: it kept its input before it was computed.
    assert predict({**DENSE, "recompute": True})["compute_time_s"] < 1.05 * predict(DENSE)["compute_time_s"]


@pytest.mark.parametrize(
    ("plan", "times_gradient"),
    [
        pytest.param({"zero_stage": 1}, 1.0, id="zero1-is-an-all-reduce"),
        pytest.param({"zero_stage": 2}, 1.0, id="zero2-is-an-all-reduce"),
        pytest.param({"zero_stage": 3}, 1.5, id="zero3-half-more"),
        pytest.param({"zero_stage": 3, "num_microbatches": 2}, 3.0, id="zero3-for-every-micro-batch"),
        pytest.param({"num_microbatches": 4}, 1.0, id="accumulation-once"),
        pytest.param({"compression": "bf16"}, 0.5, id="half-the-bits"),
        pytest.param({"compression": "top-k", "top_k_frac": 0.1}, 0.4, id="values-and-places"),
        pytest.param({"average_every": 4}, 0.25, id="every-fourth-step"),
    ],
)
def test_bytes_on_the_wire(plan, times_gradient):
    # A ring sends 2 (n - 1) / n of the gradient from each of the n ranks.
    found = predict({**DENSE, "nodes": 4, **plan})
    gradient = catalog.facts("synthetic").sized(512, 4).gradient_bytes
    assert found["sent_bytes"] == pytest.approx(times_gradient * 2 * 3 * gradient)


def test_tensor_parallel_sums_the_activations_of_each_pair():
    # Two pairs: a sum behind each forward, and one before the second backward; the input owes nobody a gradient.
    found = predict({**DENSE, **TP})
    assert found["sent_bytes"] == pytest.approx(3 * 256 * 512 * 4 * 2)


def test_a_pipeline_sends_activations_and_their_gradients():
    assert predict({**DENSE, **PP})["sent_bytes"] == pytest.approx(2 * 256 * 512 * 4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_a_rank_holds(optimizer):
    whole = 4.0 * catalog.facts("synthetic").sized(512, 4).params
    state = {"sgd": 1, "adamw": 2}[optimizer] * whole
    for stage, held in enumerate([(1, 1, 1), (1, 1, 0.5), (1, 0.5, 0.5), (0.5, 0.5, 0.5)]):
        found = predict({**DENSE, **SPREAD, "zero_stage": stage, "optimizer": optimizer, "num_microbatches": 2})
        for name, share, size in zip(
            ("parameters", "gradients", "optimizer"), held, (whole, whole, state), strict=True
        ):
            assert found[f"{name}_bytes"] == pytest.approx(share * size, rel=1e-3), (stage, name)
    for plan in (TP, PP):
        assert predict({**DENSE, **plan})["parameters_bytes"] == pytest.approx(whole / 2, rel=0.02)


#: 1 M numbers of a stage, with momentum: what one node hands to the other is half of the state.
COPIES = {**DENSE, "redundancy": "neighbour", "mirror_every": 4}


def test_copies_in_a_neighbours_memory_are_sent_now_and_then_and_held_twice():
    whole = 2 * 4.0 * catalog.facts("synthetic").sized(512, 4).params
    for plan in ({**SPREAD, "zero_stage": 1}, {**SPREAD, "zero_stage": 3}, PP):
        with_copies, without = predict({**COPIES, **plan}), predict({**DENSE, **plan})
        assert with_copies["sent_bytes"] - without["sent_bytes"] == whole / 4
        # Both halves of the state, its own and the neighbour's, of two generations.
        assert with_copies["mirror_bytes"] == 2 * whole
        assert with_copies["step_time_s"] > without["step_time_s"]
        assert sum(with_copies[part] for part in Training.parts) == pytest.approx(with_copies["step_time_s"])
    # Half of the state, every fourth step: copied here (read, fetched to be overwritten, written), then by a message of its own.
    plan = {**SPREAD, "zero_stage": 1}
    more_s = predict({**COPIES, **plan})["exposed_comm_time_s"] - predict({**DENSE, **plan})["exposed_comm_time_s"]
    copy_s, message_s = 3 * whole / 2 / MEMORY_BYTES_PER_S, LATENCY_S / 2 + whole / 2 / BYTES_PER_S
    assert more_s == pytest.approx((copy_s + message_s) / 4, rel=0.1)


def test_replicas_hold_what_a_neighbour_would():
    plan = {**TP, "nodes": 4}
    found = predict({**COPIES, **plan})
    assert found["sent_bytes"] == predict({**DENSE, **plan})["sent_bytes"]
    assert found["mirror_bytes"] == 2 * 2 * found["parameters_bytes"]  # two generations of weights and momentum
    plain = predict({**COPIES, **SPREAD})
    assert plain["sent_bytes"] == predict({**DENSE, **SPREAD})["sent_bytes"]
    assert "mirror_bytes" not in plain.values


def test_an_injected_link_holds_up_copies_too():
    slow = {**SPREAD, "zero_stage": 1, "link_latency_s": 0.01}
    more_s = predict({**COPIES, **slow})["injected_time_s"] - predict({**DENSE, **slow})["injected_time_s"]
    assert more_s == pytest.approx((0.01 + SLEEP_OVERHEAD_S) / 4)


def test_a_slow_node_holds_up_its_stage_and_the_others():
    plain, slowed = predict({**DENSE, **PP}), predict({**DENSE, **PP, "slow_node": 0, "slow_factor": 3.0})
    assert slowed["step_time_s"] > 2 * plain["step_time_s"]
    assert slowed["injected_time_s"] == pytest.approx(
        plain["compute_time_s"], rel=0.2
    )  # twice one of two ranks' passes
    assert slowed["bubble_time_s"] > plain["bubble_time_s"]
    accumulate = {**DENSE, **SPREAD, "num_microbatches": 2, "slow_node": 1, "slow_factor": 3.0}
    assert predict(accumulate)["straggler_wait_time_s"] > 0.9 * predict(accumulate)["injected_time_s"]


def test_an_injected_link_holds_up_every_message():
    asked = {"link_latency_s": 0.01}
    base = predict({**DENSE, **TP})
    slow = predict({**DENSE, **TP, **asked})  # three sums of two messages each, around a ring of two
    assert slow["injected_time_s"] == pytest.approx(3 * 2 * (0.01 + SLEEP_OVERHEAD_S))
    assert slow["step_time_s"] - base["step_time_s"] == pytest.approx(slow["injected_time_s"])
    staged = predict({**DENSE, **PP, **asked})  # each of two stages receives four messages
    assert staged["injected_time_s"] == pytest.approx(4 * (0.01 + SLEEP_OVERHEAD_S))


def test_what_is_sent_takes_the_time_of_its_own_kind():
    found = predict({**DENSE, **SPREAD, "zero_stage": 1})
    size = catalog.facts("synthetic").sized(512, 4).gradient_bytes
    halves = 2 * (LATENCY_S / 2 + size / BYTES_PER_S / 2)
    assert found["exposed_comm_time_s"] == pytest.approx(halves, rel=0.1)


def test_a_sweep_is_one_prediction_after_the_other_and_nothing_where_degrees_do_not_divide():
    nodes = np.array([1.0, 2.0, 3.0, 4.0])
    found = predict({**DENSE, **TP}, nodes=nodes)
    assert np.isnan(found["step_time_s"][[0, 2]]).all()
    for i in (1, 3):
        single = predict({**DENSE, **TP, "nodes": int(nodes[i])})
        assert found["step_time_s"][i] == pytest.approx(single["step_time_s"])
        assert found["energy_per_step_j"][i] == pytest.approx(single["energy_per_step_j"])
    batches = predict({**DENSE, **PP}, global_batch=np.array([[64.0], [256.0]]), slow_factor=np.array([1.0, 2.0]))
    assert batches["step_time_s"].shape == (2, 2)


def test_only_node_counts_that_the_degrees_divide_are_offered():
    lab, at, curve = Training(), machine(), Training.curves[0]
    assert list(lab.sweep(TrainingSpec.make({}), at, curve)) == [1, 2, 3, 4]
    assert list(lab.sweep(TrainingSpec.make({**DENSE, **TP}), at, curve)) == [2, 4]
    eight = TrainingSpec.make({**DENSE, "nodes": 8, "tp_size": 2, "pp_size": 4, "num_microbatches": 4})
    assert list(lab.sweep(eight, at, curve)) == [8]
    curves = lab.reference_curves(TrainingSpec.make({**DENSE, **TP}), at, curve, [2, 4])
    assert curves["ideal"][1] == pytest.approx(2 * curves["ideal"][0])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({"engine": "torch-ddp"}, "reference, and not predicted", id="torch"),
        pytest.param({"precision": "bf16"}, "float32", id="bf16"),
        pytest.param({"compile": True}, "not compiled", id="compiled"),
        pytest.param({**PP, "nodes": 6, "pp_size": 6, "num_microbatches": 6}, "has", id="too-many-stages"),
    ],
)
def test_what_was_not_probed_is_refused(values, says):
    with pytest.raises(ModelInputError, match=says):
        predict({"workload": "net-10-5-2", "global_batch": 64, **values})


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        ({**SPREAD, "compression": "powersgd"}, "orthogonal"),
        ({**SPREAD, "average_every": 4}, "spread over the 4 steps"),
        ({**SPREAD, "zero_stage": 1, "redundancy": "neighbour"}, "spread over the 10 steps"),
        ({**PP, "overlap": True}, "Overlap is not predicted"),
    ],
)
def test_what_is_left_out_is_said(plan, word):
    assert any(word in note for note in predict({**DENSE, **plan}).notes)


def test_a_plan_beyond_the_memory_is_refused_before_launch_with_figures():
    large = TrainingSpec.make({"workload": "gpt-350m", "nodes": 2, "global_batch": 8})
    with pytest.raises(AdmissionError, match="this machine has") as error:
        Training().admit(large, Machine("small", "now", 2, 2**33))
    assert "GiB" in str(error.value)
    Training().admit(large, Machine("large", "now", 64, 2**38))
    Training().admit(TrainingSpec.make({}), Machine("small", "now", 2, 2**33))


def test_sharding_and_recomputation_make_room():
    need = {}
    for name, plan in {"whole": {}, "zero3": {"zero_stage": 3}, "again": {"zero_stage": 3, "recompute": True}}.items():
        low, high = 2**30, 2**40
        spec = TrainingSpec.make({"workload": "gpt-124m", "nodes": 4, "global_batch": 64, **plan})
        while high - low > 2**20:
            middle = (low + high) // 2
            try:
                Training().admit(spec, Machine("any", "now", 2, middle))
                high = middle
            except AdmissionError:
                low = middle
        need[name] = high
    assert need["whole"] > need["zero3"] > need["again"]
