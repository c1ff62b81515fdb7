"""What ranks send: rings and groups by hand, the layout over nodes, and which way it may go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.models.transformer import PARAMETERS, Accelerator, Cluster, Plan, Transformer
from aiinfra_widgets.models.transformer.communication import (
    Link,
    gather_time_s,
    gradient_time_s,
    group_link,
    layer_traffic,
    local_parameters,
    ring_time_s,
    stage_transfer_s,
)

GPT = Transformer(layers=8, hidden=64, heads=16, seq_len=32, vocab=100)
MIXTURE = replace(GPT, experts=8, active_experts=2)
DEVICE = Accelerator(312e12, 0.8, 80e9, 2e12)
#: Nodes of 8; 100 bytes/s inside, 10 per device between them, no latency, and nothing is lost.
CLUSTER = Cluster(DEVICE, 8, 100.0, 0.0, 10.0, 0.0)
SLOW = replace(CLUSTER, node_latency_s=3.0, fabric_latency_s=7.0)
WHOLE = replace(PARAMETERS, node_link_frac=1.0, fabric_frac=1.0, p2p_exposed=1.0)
#: Bytes of the activation of one micro-batch of one sequence.
ACTIVATION = 2 * 32 * 64


@pytest.mark.parametrize(
    ("size", "ranks", "passes", "want"),
    [
        pytest.param(100, 1, 1, 0, id="one-rank-is-free"),
        pytest.param(100, 4, 1, 3 * (25 / 10 + 2), id="gather"),
        pytest.param(100, 4, 2, 6 * (25 / 10 + 2), id="reduce"),
        pytest.param(0, 4, 2, 12, id="latency-only"),
    ],
)
def test_rings_by_hand(size, ranks, passes, want):
    assert ring_time_s(size, ranks, Link(10.0, 2.0), passes) == pytest.approx(want)


def test_dimensions_of_a_ring(u):
    found = ring_time_s(8e9 * u.byte, 4, Link(25e9 * u.byte / u.s, 5e-6 * u.s), 2)
    assert found.check("[time]")
    assert found.to("s").magnitude == pytest.approx(ring_time_s(8e9, 4, Link(25e9, 5e-6), 2))


@pytest.mark.parametrize(
    ("size", "stride", "multi_rail", "bandwidth", "latency"),
    [
        pytest.param(8, 1, True, 100, 3, id="one-node"),
        pytest.param(2, 4, True, 100, 3, id="its-far-corners"),
        pytest.param(16, 1, True, 80, 7, id="two-nodes-by-eight-cards"),
        pytest.param(16, 1, False, 10, 7, id="two-nodes-by-one-card"),
        pytest.param(4, 4, True, 20, 7, id="two-ranks-of-each-node"),
        pytest.param(2, 8, True, 10, 7, id="one-rank-of-each-node"),
        pytest.param(2, 64, True, 10, 7, id="far-apart"),
    ],
)
def test_the_link_of_a_group_by_hand(size, stride, multi_rail, bandwidth, latency):
    link = group_link(SLOW, Plan(multi_rail=multi_rail), size, stride, WHOLE)
    assert (link.bandwidth_bytes_per_s, link.latency_s) == (bandwidth, latency)


def test_a_ring_over_nodes_is_never_faster_than_the_link_inside():
    fast = replace(CLUSTER, fabric_bandwidth_oneway_bytes_per_s=50.0)
    assert group_link(fast, Plan(), 16, 1, WHOLE).bandwidth_bytes_per_s == 100


def test_tensor_parallelism_by_hand():
    # Forward: two all-reduces of the activation; a ring of n moves 2 (n-1)/n of it.
    found = layer_traffic(GPT, Plan(tp_size=4), CLUSTER, WHOLE)
    assert found.tensor_s == pytest.approx(2 * 2 * 3 / 4 * ACTIVATION / 100)
    assert (found.context_s, found.expert_s) == (0, 0)
    parallel = layer_traffic(GPT, Plan(tp_size=4, sequence_parallel=True), CLUSTER, WHOLE)
    assert parallel.tensor_s == found.tensor_s


def test_context_parallelism_by_hand():
    # Keys and values of this rank's tokens go once around; grouped queries send fewer.
    for heads in (16, 4):
        model = replace(GPT, kv_heads=heads)
        found = layer_traffic(model, Plan(cp_size=4), SLOW, WHOLE)
        assert found.context_s == pytest.approx(3 * (2 * 8 * 2 * heads * 4 / 100 + 3))


@pytest.mark.parametrize(
    ("dp", "ep", "want"),
    [
        # Two all-to-alls; each token goes to 2 of 8 experts.
        pytest.param(8, 8, 2 * ACTIVATION * 2 * 7 / 8 / 100, id="inside-a-node"),
        # Seven of eight copies leave the device inside; a token meets the other node unless both experts are here.
        pytest.param(
            16, 16, 2 * ACTIVATION * (2 * 7 / 8 / 100 + (1 - 1 / 4) / 10), id="a-token-crosses-once-to-a-node"
        ),
    ],
)
def test_expert_parallelism_by_hand(dp, ep, want):
    model = replace(MIXTURE, experts=16)
    plan = Plan(dp_size=dp, ep_size=ep, global_batch_size=dp)
    assert layer_traffic(model, plan, CLUSTER, WHOLE).expert_s == pytest.approx(want)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param({"pp_size": 1}, 0, id="one-stage-is-free"),
        pytest.param({}, 2 * ACTIVATION / 100, id="there-and-back-inside-a-node"),
        pytest.param({"dp_size": 8}, 2 * ACTIVATION / 10, id="between-nodes"),
        pytest.param({"dp_size": 8, "tp_size": 4}, 2 * ACTIVATION / 4 / 10, id="each-tensor-rank-its-share"),
        pytest.param({"dp_size": 8, "tp_size": 4, "split_p2p": False}, 2 * ACTIVATION / 10, id="each-the-whole"),
        pytest.param(
            {"dp_size": 8, "tp_size": 4, "split_p2p": False, "sequence_parallel": True},
            2 * ACTIVATION / 4 / 10,
            id="sequence-parallel-has-only-its-share",
        ),
        pytest.param({"dp_size": 8, "interleave": 2}, 4 * ACTIVATION / 10, id="once-per-chunk"),
    ],
)
def test_transfers_between_stages_by_hand(change, want):
    plan = Plan(**{"pp_size": 4, "global_batch_size": 8, **change})
    assert stage_transfer_s(GPT, plan, CLUSTER, WHOLE) == pytest.approx(want)


def test_weights_of_a_rank_by_hand():
    layer, ends = GPT.layer_parameters, GPT.embedding_parameters
    assert local_parameters(GPT, Plan()) == 8 * layer + ends
    assert local_parameters(GPT, Plan(tp_size=2, pp_size=4)) == (2 * layer + ends) / 2
    assert local_parameters(GPT, Plan(pp_size=3)) == 3 * layer + ends  # the fullest stage
    experts = 8 * 8 * MIXTURE.expert_parameters
    spread = local_parameters(MIXTURE, Plan(dp_size=4, ep_size=4, global_batch_size=4))
    assert spread == pytest.approx(local_parameters(MIXTURE, Plan()) - experts * 3 / 4)


@pytest.mark.parametrize(
    ("precision", "size"), [("fp32", 4), ("bf16", 4), ("fp8", 4), pytest.param("fp16", 2, id="fp16-scaled-loss")]
)
def test_gradients_by_hand(precision, size):
    plan = Plan(dp_size=4, global_batch_size=4, precision=precision)
    assert gradient_time_s(GPT, plan, CLUSTER, WHOLE) == pytest.approx(
        2 * 3 / 4 * size * local_parameters(GPT, plan) / 100
    )


def test_sharded_weights_by_hand():
    # ZeRO-3 gathers twice and scatters once per micro-batch, of 16 bits each; nothing is left to reduce.
    plan = Plan(dp_size=8, global_batch_size=8, zero_stage=3)
    weights = 2 * local_parameters(GPT, plan)
    assert gather_time_s(GPT, plan, CLUSTER, WHOLE) == pytest.approx(3 * 7 / 8 * weights / 100)
    assert gradient_time_s(GPT, plan, CLUSTER, WHOLE) == 0
    for stage in (0, 1, 2):
        assert gather_time_s(GPT, replace(plan, zero_stage=stage), CLUSTER, WHOLE) == 0


def test_hybrid_sharding_gathers_in_its_node_and_reduces_a_share_between_nodes():
    plan = Plan(dp_size=32, global_batch_size=32, zero_stage=3, shard_size=8)
    held = local_parameters(GPT, plan)
    assert gather_time_s(GPT, plan, CLUSTER, WHOLE) == pytest.approx(3 * 7 / 8 * 2 * held / 100)
    assert gradient_time_s(GPT, plan, CLUSTER, WHOLE) == pytest.approx(2 * 3 / 4 * 4 * held / 8 / 10)
    everywhere = gather_time_s(GPT, replace(plan, shard_size=0), CLUSTER, WHOLE)
    assert everywhere > gather_time_s(GPT, plan, CLUSTER, WHOLE)


def _all(model, plan, cluster, p=PARAMETERS):
    traffic = layer_traffic(model, plan, cluster, p)
    return [
        traffic.tensor_s, traffic.context_s, traffic.expert_s, stage_transfer_s(model, plan, cluster, p),
        gather_time_s(model, plan, cluster, p), gradient_time_s(model, plan, cluster, p),
    ]  # fmt: skip


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("model", [GPT, MIXTURE], ids=["dense", "mixture"])
def test_one_rank_sends_nothing(model, zero_stage):
    for flag in (False, True):
        plan = Plan(zero_stage=zero_stage, sequence_parallel=flag, split_p2p=flag, multi_rail=flag)
        assert _all(model, plan, SLOW) == [0] * 6


plans = st.builds(
    lambda dp, tp, pp, cp, ep, zero, rail, split: Plan(
        dp_size=dp * ep, tp_size=tp, pp_size=pp, cp_size=cp, ep_size=ep, global_batch_size=dp * ep,
        zero_stage=zero, multi_rail=rail, split_p2p=split,
    ),
    *[st.sampled_from(n) for n in ([1, 2, 3, 8], [1, 2, 4, 16], [1, 2, 8], [1, 2, 4], [1, 2, 8], [0, 1, 3])],
    st.booleans(), st.booleans(),
)  # fmt: skip
LINKS = (
    "node_bandwidth_oneway_bytes_per_s", "fabric_bandwidth_oneway_bytes_per_s", "node_latency_s", "fabric_latency_s",
)  # fmt: skip


@given(plans, st.sampled_from(LINKS), st.floats(1.01, 100))
@settings(max_examples=50)
def test_a_better_link_is_never_slower(plan, field, factor):
    faster = factor if "bandwidth" in field else 1 / factor
    better = replace(SLOW, **{field: faster * getattr(SLOW, field)})
    for before, after in zip(_all(MIXTURE, plan, SLOW), _all(MIXTURE, plan, better), strict=True):
        assert after <= before * (1 + 1e-12)


@given(plans)
@settings(max_examples=30)
def test_links_without_limit_cost_nothing(plan):
    free = Cluster(DEVICE, 8, np.inf, 0.0, np.inf, 0.0)
    assert _all(MIXTURE, plan, free) == [0] * 6


@given(plans, st.integers(2, 4))
@settings(max_examples=30)
def test_a_wider_model_never_sends_less(plan, factor):
    wide = replace(MIXTURE, hidden=64 * factor, head_size=4 * factor, ffn=256 * factor)
    for narrow, wider in zip(_all(MIXTURE, plan, SLOW), _all(wide, plan, SLOW), strict=True):
        assert wider >= narrow
