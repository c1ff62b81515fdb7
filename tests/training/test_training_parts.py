"""What a training run is made of, without ranks: the Spec's rules, flat buffers, arrival times, what follows from a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Value
from aiinfra_widgets.ranks.buffers import COARSE_S, WRAP, FlatBuffers
from aiinfra_widgets.workloads import catalog

TRAINING = experiment("training")
HERE = Machine("here", "2026-01-01", 2, 8 * 2**30)


TWO = {"nodes": 2, "redundancy": "neighbour"}


def spec(**values):
    return TRAINING.spec.make(values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nodes": 3, "global_batch": 2}, "nodes: got 3; with global_batch 2 some would have no sample"),
        (
            {"workload": "digits-cnn", "global_batch": 1438},
            "global_batch: got 1438; digits-cnn has 1437 training samples",
        ),
        ({"nodes": 2, "slow_node": 2}, "slow_node: got 2; with 2 nodes"),
        (
            {"link_bandwidth_bytes_per_s": 1.0},
            "link_bandwidth_bytes_per_s: got 1; allowed: 0 (as fast as it is), or 1 MB/s",
        ),
        ({"momentum": 1.0}, "momentum: got 1.0"),
        (
            {"redundancy": "neighbour"},
            "redundancy: 1 node has no neighbour to keep a copy; use redundancy checkpoint, or 2",
        ),
        ({**TWO, "engine": "torch-fsdp2"}, "redundancy: torch-fsdp2 is torch's own and keeps no copies"),
        ({**TWO, "average_every": 4}, "redundancy: replicas that drift hold a state of their own each"),
        (
            {**TWO, "device": "auto"},
            "redundancy: a death leaves NCCL's groups hanging; use transport=mpi or device=cpu",
        ),
        ({**TWO, "mirror_every": 1001}, "mirror_every: got 1001"),
        ({"algorithm": "rign"}, "did you mean 'ring'"),
        ({"device": "gpu"}, "device: got 'gpu'"),
        ({"steps": True}, "steps: got True"),
        ({"workload": "synthetic", "width": 63}, "synthetic: width is 63; allowed: a whole number from 64 to 4096"),
    ],
)
def test_what_does_not_fit_together_is_said(values, says):
    with pytest.raises(SpecError) as error:
        spec(**values)
    assert says in str(error.value)


def test_the_users_own_data_may_hold_more_samples_than_ours():
    assert spec(workload="dense-100-64-1", data_dir="/somewhere", global_batch=60_000).global_batch == 60_000


def test_every_workload_is_allowed_with_its_own_batch_and_rate():
    for name in catalog.names():
        facts = catalog.facts(name)
        made = spec(workload=name, global_batch=facts.default_batch, learning_rate=facts.default_lr)
        assert made.workload == name


def test_what_the_state_depends_on_cannot_change_while_a_run_goes_on():
    live = {k.name for k in TRAINING.spec.knobs().values() if k.live}
    assert not live & {"workload", "width", "depth", "data_dir", "seed", "momentum", "device", "steps"}
    assert {
        "nodes",
        "global_batch",
        "learning_rate",
        "slow_node",
        "link_latency_s",
        "link_bandwidth_bytes_per_s",
    } <= live


def test_every_number_has_a_stated_range_and_every_field_a_help():
    for knob in TRAINING.spec.knobs().values():
        assert knob.help
        if knob.kind in {"int", "float"}:
            assert knob.low is not None, knob.name
            assert knob.high is not None, knob.name


def test_throughput_follows_from_the_measured_step():
    step = Value("step_time_s", 0.02, 0.01, 0.04, "measured", n=9)
    found = TRAINING.derive(spec(global_batch=100), HERE, {"step_time_s": step}, 1.0)["samples_per_s"]
    assert (found.value, found.low, found.high, found.method) == (5000.0, 2500.0, 10_000.0, "measured")
    assert TRAINING.derive(spec(), HERE, {}, 1.0) == {}
    assert TRAINING.derive(spec(), HERE, {"step_time_s": Value("step_time_s", None)}, 1.0) == {}


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def test_the_modules_tensors_are_views_of_the_flat_buffers():
    module, plain = net(), net()
    flat = FlatBuffers(list(module.parameters()), tail=6, device=torch.device("cpu"))
    assert flat.size == sum(p.numel() for p in plain.parameters()) == 26
    x = torch.ones(4, 5)
    assert torch.equal(module(x), plain(x))
    module(x).sum().backward()
    plain(x).sum().backward()
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    assert flat.gradients.abs().sum() == pytest.approx(float(sum(p.grad.abs().sum() for p in plain.parameters())))
    flat.parameters.zero_()
    assert all(not p.any() for p in module.parameters())
    assert flat.reduced(2).size == 26 + 2 + 4
    assert np.shares_memory(flat.reduced(2), flat.gradients.numpy())


@pytest.mark.parametrize("now_s", [0.0, 12.3456789, WRAP * COARSE_S - 1e-5, 1e7 + 0.123, 3 * WRAP * COARSE_S])
@pytest.mark.parametrize("later_s", [(0.0, 0.0, 0.0), (0.0, 25e-6, 3e-3), (0.7, 0.0, 0.2), (0.0, 1.5, 0.0)])
def test_arrival_times_survive_the_sum_in_float32(now_s, later_s):
    """What each of three ranks reads after the all-reduce: how long after it the last one arrived, to a microsecond."""
    n = len(later_s)
    flats = [FlatBuffers(list(net().parameters()), tail=2 + 2 * n, device=torch.device("cpu")) for _ in later_s]
    for rank, flat in enumerate(flats):
        flat.put_tail(rank, n, loss=0.5, ballot=1000 if rank == 0 else 0, now_s=now_s + later_s[rank])
    total = sum(flat.tail_host[: 2 + 2 * n].copy() for flat in flats)
    for rank, flat in enumerate(flats):
        flat.tail_host[: 2 + 2 * n] = total
        loss, ballot, latest_s = flat.read_tail(rank, n)
        assert loss == pytest.approx(1.5)
        assert ballot == 1000
        assert latest_s == pytest.approx(max(later_s) - later_s[rank], abs=1e-6)
