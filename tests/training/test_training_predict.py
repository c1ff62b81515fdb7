"""The prediction of a training step, on a machine whose probes follow simple laws, so that answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.experiments.training import Training
from aiinfra_widgets.experiments.training.spec import TrainingSpec
from aiinfra_widgets.machine.profile import Host, Machine, Probe
from aiinfra_widgets.quantities import Prediction, Value
from aiinfra_widgets.workloads import catalog
from tests.training.made_up_machine import FLOPS, machine


def predict(values: dict[str, Any] | None = None, at: Machine | None = None, **over: Any) -> Prediction:
    return Training().predict(TrainingSpec.make(values or {}), at or machine(), **over)


#: A gradient above 1 GiB is beyond the all-reduces that were probed.
PROBED = [name for name in catalog.names() if catalog.facts(name).gradient_bytes < 2**30]


@pytest.mark.parametrize("workload", PROBED)
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_the_parts_add_up(workload, nodes):
    found = predict({"workload": workload, "nodes": nodes, "global_batch": 64})
    assert sum(found[part] for part in Training.parts) == pytest.approx(found["step_time_s"])
    assert found["samples_per_s"] == pytest.approx(64 / found["step_time_s"])
    value = found.values["step_time_s"]
    assert value.low < value.value < value.high
    assert value.method == "modelled"


def test_hand_computed_arithmetic():
    # One square layer: 6 w^2 b flop less the gradient of the input that a first layer owes nobody, overheads on top.
    found = predict({"workload": "synthetic", "width": 1024, "depth": 1, "global_batch": 1024})
    flop = 4 * 1024**2 * 1024
    assert found["compute_time_s"] == pytest.approx(flop / FLOPS, rel=0.02)


def test_one_call_is_one_sweep():
    nodes = np.array([1.0, 2.0, 4.0])[:, None]
    batches = np.array([64.0, 256.0])[None, :]
    sweep = predict({"workload": "digits-cnn"}, nodes=nodes, global_batch=batches)
    assert sweep["step_time_s"].shape == (3, 2)
    for i, n in enumerate((1, 2, 4)):
        for j, b in enumerate((64, 256)):
            single = predict({"workload": "digits-cnn", "nodes": n, "global_batch": b})
            for name in ("step_time_s", "samples_per_s", "energy_per_step_j", "cost_per_step_usd"):
                assert np.broadcast_to(sweep[name], (3, 2))[i, j] == pytest.approx(single[name]), name


def on_hosts(*hosts: Host) -> Machine:
    here = machine()
    return here.with_probes(here.probes, hosts=hosts)


def test_hosts_are_filled_one_after_the_other():
    at = on_hosts(Host("a", 2), Host("b", 1), Host("c", 4))
    assert at.ranks_on_hosts([0, 1, 2, 3, 5, 9]).tolist() == [
        [0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0], [2, 1, 2], [2, 1, 6],
    ]  # fmt: skip
    assert at.cores_of(7) == 2 + 1 + 2  # of two cores each


def test_on_hosts_nodes_beyond_one_machines_cores_help_and_the_slowest_host_holds_all_up():
    asked = {"workload": "digits-cnn", "global_batch": 1024, "nodes": 4}
    two = predict({**asked, "nodes": 2}, at=on_hosts(Host("a", 2), Host("b", 2)))
    alike = predict(asked, at=on_hosts(Host("a", 2), Host("b", 2)))
    assert alike["step_time_s"] < 0.75 * two["step_time_s"]  # on one machine of two cores, no gain: the test below
    slow = predict(asked, at=on_hosts(Host("a", 2), Host("b", 2, 0.5)))
    forward_s = alike["compute_time_s"]
    assert slow["straggler_wait_time_s"] == pytest.approx(
        0.5 * forward_s, rel=0.1
    )  # half of the nodes wait as long again
    assert slow["step_time_s"] == pytest.approx(alike["step_time_s"] + forward_s, rel=0.1)
    assert sum(slow[part] for part in Training.parts) == pytest.approx(slow["step_time_s"])
    assert any("all wait for b, at 0.5" in note for note in slow.notes)


def test_a_measured_speed_is_used_where_the_host_file_gives_none_and_its_origin_is_said():
    asked = {"workload": "digits-cnn", "global_batch": 1024, "nodes": 2}
    measured = Host("b", 1, measured=0.5, q25=0.4, q75=0.625, n=9)
    assert [measured.told(given).speed for given in (None, 2.0)] == [0.5, 2.0]
    assert [Host("b", 1).told(given).origin for given in (None, 2.0)] == ["assumed", "given"]
    found = predict(asked, at=on_hosts(Host("a", 1).told(None), measured.told(None)))
    same = predict(asked, at=on_hosts(Host("a", 1), Host("b", 1, 0.5)))
    assert found["step_time_s"] == same["step_time_s"]
    # What was measured has quartiles, and they are part of the prediction's: high speeds are short times.
    value, exact = found.values["step_time_s"], same.values["step_time_s"]
    assert value.low < exact.low < value.value < exact.high < value.high
    assert any("a 1 (assumed, not measured)" in note for note in found.notes)
    assert any("b 0.5 (measured " in note for note in found.notes)
    assert any("b 0.5 (by the host file)" in note for note in same.notes)


@pytest.mark.parametrize(
    ("given", "said"), [(0.55, ""), (0.61, "speed=0.61, but 0.5 was measured"), (0.39, "speed=0.39, but 0.5")]
)
def test_a_host_file_that_is_a_fifth_off_what_was_measured_is_contradicted_with_both_numbers(given, said):
    b = Host("b", 1, measured=0.5, q25=0.5, q75=0.5, n=9).told(given)
    assert said in b.contradiction
    assert bool(b.contradiction) == bool(said)
    assert not b.told(None).contradiction


def test_more_nodes_than_cores_bring_nothing_and_say_so():
    found = {n: predict({"workload": "digits-cnn", "global_batch": 1024, "nodes": n}) for n in (1, 2, 4)}
    assert found[2]["step_time_s"] < 0.6 * found[1]["step_time_s"]
    assert found[4]["step_time_s"] > 0.9 * found[2]["step_time_s"]
    assert any("share 2 cores" in note for note in found[4].notes)
    assert not any("share" in note for note in found[2].notes)


def test_a_slow_node_makes_the_others_wait():
    plain, slowed = predict({"nodes": 2}), predict({"nodes": 2, "slow_node": 1, "slow_factor": 3.0})
    extra = slowed["step_time_s"] - plain["step_time_s"]
    assert extra == pytest.approx(2 * (plain["compute_time_s"] - 1e-5), rel=0.05)
    assert slowed["injected_time_s"] == pytest.approx(extra / 2)
    assert slowed["straggler_wait_time_s"] - plain["straggler_wait_time_s"] == pytest.approx(extra / 2)


def test_an_injected_link_costs_every_message_of_the_algorithm():
    base = predict({"nodes": 4})["step_time_s"]
    for algorithm, messages in (("ring", 6), ("tree", 4), ("recursive-doubling", 2)):
        found = predict({"nodes": 4, "algorithm": algorithm, "link_latency_s": 0.01})
        assert found["injected_time_s"] == pytest.approx(messages * 0.01, rel=0.02), algorithm
        assert found["step_time_s"] == pytest.approx(base + found["injected_time_s"])

    # Of 3 nodes on one host and 2 on another: two rounds inside, up and down, and a ring of two hosts.
    spread = on_hosts(Host("a", 3), Host("b", 2))
    found = predict({"nodes": 5, "algorithm": "hierarchical", "link_latency_s": 0.01}, at=linked(spread))
    assert found["injected_time_s"] == pytest.approx((2 * 2 + 2) * 0.01, rel=0.02)
    alone = predict({"nodes": 4, "algorithm": "hierarchical", "link_latency_s": 0.01})
    assert alone["injected_time_s"] == pytest.approx(4 * 0.01, rel=0.02)  # one host: a tree


def linked(machine: Machine, within_s: float = 1e-12, between_s: float = 1e-8) -> Machine:
    """The machine with calibrated links, in seconds a byte beyond a microsecond of latency."""
    ways = {"within": within_s, "between": between_s}
    rows = [(where, size, 1e-6 + size * each) for where, each in ways.items() for size in (8, 2**16, 2**20, 2**24)]
    probes = [Probe("link", {"where": w, "bytes": size}, "s", t, t, t, 3) for w, size, t in rows]
    return machine.with_probes([*machine.probes, *probes])


def test_a_hierarchical_sum_over_hosts_goes_by_the_links():
    asked = {"workload": "synthetic", "width": 512, "depth": 2, "nodes": 5}
    spread = linked(on_hosts(Host("a", 3), Host("b", 2)))
    found = predict({**asked, "algorithm": "hierarchical"}, at=spread)
    size = catalog.facts("synthetic").sized(512, 2).gradient_bytes
    # Between two hosts goes half of the buffer twice; adding in memory counts less than a tenth of that here.
    assert found["exposed_comm_time_s"] == pytest.approx(size * 1e-8, rel=0.1)
    assert any("stage by stage" in note for note in found.notes)
    slower = predict({**asked, "algorithm": "hierarchical"}, at=linked(on_hosts(Host("a", 3), Host("b", 2)), 1e-8))
    # Two rounds of the whole buffer up and down; 3 ranks take turns on 2 cores.
    more_s = slower["exposed_comm_time_s"] - found["exposed_comm_time_s"]
    assert more_s == pytest.approx(1.5 * 4 * size * 1e-8, rel=0.1)
    assert found["sent_bytes"] == predict(asked, at=spread)["sent_bytes"]
    assert predict(asked, at=spread)["exposed_comm_time_s"] != found["exposed_comm_time_s"]  # the library's own


def test_overlap_hides_an_injected_delay_behind_arithmetic():
    asked = {"workload": "synthetic", "width": 512, "global_batch": 1024, "nodes": 2, "link_bandwidth_bytes_per_s": 1e9}
    apart, together = predict({**asked, "overlap": False}), predict({**asked, "overlap": True})
    assert together["step_time_s"] < apart["step_time_s"]
    assert together["injected_time_s"] < apart["injected_time_s"]


def test_a_larger_batch_costs_no_less_and_a_larger_gradient_neither():
    steps = predict({"workload": "digits-cnn"}, global_batch=np.array([32.0, 64.0, 128.0, 512.0]))["step_time_s"]
    assert (np.diff(steps) > 0).all()
    wide = [predict({"workload": "synthetic", "width": w, "nodes": 2})["exposed_comm_time_s"] for w in (128, 512, 2048)]
    assert wide == sorted(wide)


@pytest.mark.parametrize(
    ("values", "over", "says"),
    [
        pytest.param({"device": "cuda"}, {}, "GPU", id="no-gpu-model"),
        pytest.param({"threads_per_node": 2}, {}, "one thread", id="threads"),
        pytest.param({}, {"learning_rate": np.array([1.0])}, "cannot sweep", id="not-swept"),
    ],
)
def test_outside_its_domain_it_refuses(values, over, says):
    with pytest.raises(ModelInputError, match=says):
        predict(values, **over)


def test_an_uncalibrated_machine_is_refused_with_the_next_step():
    with pytest.raises(ModelInputError, match="aiinfra calibrate"):
        predict(at=Machine("none", "now", 2, 2**34))


def test_a_disturbed_calibration_is_said():
    assert any("quiet" in note for note in predict(at=machine(others=0.4)).notes)
    assert not any("quiet" in note for note in predict().notes)


def test_reference_curves_begin_at_one_node():
    curves = Training().reference_curves(TrainingSpec.make({}), machine(), Training.curves[0], [1, 2, 4])
    ideal, amdahl = curves.values()
    assert ideal[2] == pytest.approx(4 * ideal[0])
    assert amdahl[0] == pytest.approx(ideal[0])
    assert amdahl[2] < ideal[2]


def test_other_programs_are_named_when_the_nodes_did_not_get_the_processor():
    spec, made = TrainingSpec.make({"nodes": 2}), machine()
    predicted = predict({"nodes": 2})
    step = 3 * predicted["step_time_s"]
    measured = {"step_time_s": Value("step_time_s", step), "cpu_time_s": Value("cpu_time_s", 0.8 * step)}
    assert "40%" in Training().explain(spec, made, predicted, measured)[0]
    measured["cpu_time_s"] = Value("cpu_time_s", 2 * step)
    assert Training().explain(spec, made, predicted, measured) == []
