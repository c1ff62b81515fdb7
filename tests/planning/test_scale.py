"""One job on many accelerators: cases computed by hand, what never may be, and what a person would ask wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import PARTS, Accelerator, Cluster, Plan, Transformer, predict_step
from aiinfra_widgets.planning.scale import DAY_S, Conditions, running, scale_out, spread
from aiinfra_widgets.planning.scale_run import MeasuredStep, scale_run

MODEL = Transformer(layers=32, hidden=4096, heads=32, seq_len=2048, vocab=50_000, kv_heads=32)
CLUSTER = Cluster(Accelerator(1e15, 0.8, 80e9, 3e12), 8, 450e9, 2e-6, 50e9, 5e-6)
CONDITIONS = Conditions(
    mtbf_s=1e8, checkpoint_cost_s=10.0, restart_time_s=300.0, price_usd_per_accelerator_hour=2.0, idle_w=100.0, rated_w=700.0,
    host_w=200.0, pue=1.2, carbon_intensity_gco2e_per_kwh=400.0, embodied_gco2e_per_accelerator=5e5, lifetime_s=1e8,
)  # fmt: skip
COUNTS = np.array([1, 2, 8, 64, 512, 4096, 16_384, 100_000])


def answer(plan: Plan, counts: Any = COUNTS, scaling: Any = "strong", tokens: float = 1e12, **changes: float) -> Any:
    return scale_out(
        MODEL, plan, CLUSTER, counts, tokens=tokens, conditions=replace(CONDITIONS, **changes), scaling=scaling
    )


@pytest.mark.parametrize(
    ("plan", "count", "scaling", "dp", "each", "used", "real"),
    [
        pytest.param(Plan(tp_size=8, pp_size=2, global_batch_size=64), 64, "strong", 4, 16, 64, 64, id="whole"),
        pytest.param(Plan(tp_size=8, global_batch_size=64), 100, "strong", 12, 6, 96, 64, id="six-rounds-of-twelve"),
        pytest.param(Plan(global_batch_size=64, micro_batch_size=4), 100, "strong", 16, 1, 16, 64, id="batch-used-up"),
        pytest.param(Plan(tp_size=8, pp_size=2, global_batch_size=64), 8, "strong", 1, 64, 0, 64, id="too-few"),
        pytest.param(Plan(tp_size=2, global_batch_size=12, micro_batch_size=3), 10, "weak", 5, 4, 10, 60, id="weak"),
        pytest.param(Plan(cp_size=4, global_batch_size=5, micro_batch_size=1), 8, "strong", 2, 3, 8, 5, id="odd-batch"),
    ],
)
def test_replicas_by_hand(plan: Plan, count: int, scaling: Any, dp: int, each: int, used: int, real: int) -> None:
    found, at_work, batch = spread(plan, np.array([float(count)]), scaling)
    assert (found.dp_size[0], found.num_microbatches[0], at_work[0], batch[0]) == (dp, each, used, real)
    assert (found.tp_size, found.pp_size, found.cp_size) == (plan.tp_size, plan.pp_size, plan.cp_size)


def test_the_step_is_the_models_own() -> None:
    plan = Plan(tp_size=4, pp_size=2, global_batch_size=256)
    found = answer(plan, [512])
    alone = predict_step(MODEL, replace(plan, dp_size=64), CLUSTER)
    assert found["step_time_s"][0] == pytest.approx(float(np.asarray(alone.step_time_s)))
    assert found["mfu"][0] == pytest.approx(float(np.asarray(alone.mfu)))
    assert found["tokens_per_s"][0] == pytest.approx(float(np.asarray(alone.tokens_per_s)))


def test_running_costs_by_hand() -> None:
    calm = replace(CONDITIONS, mtbf_s=1e15, checkpoint_cost_s=1.0)
    found = running(np.array([1000.0]), np.array([36_000.0]), (0.0, 0.0, 0.0), calm)
    assert found["train_time_s"][0] == pytest.approx(36_000, rel=1e-5)
    assert found["cost_usd"][0] == pytest.approx(1000 * 10 * 2.0, rel=1e-5)
    # idle devices and hosts: 300 W for ten hours each, 3 MWh, times 1.2 in the building
    assert found["facility_energy_j"][0] == pytest.approx(3.6e6 * 3.6e3, rel=1e-5)
    assert found["operational_gco2e"][0] == pytest.approx(3600 * 400.0, rel=1e-5)
    assert found["embodied_gco2e"][0] == pytest.approx(1000 * 5e5 * 36_000 / 1e8, rel=1e-5)


def test_failures_by_hand() -> None:
    found = answer(Plan(global_batch_size=100_000), [1, 864], mtbf_s=100 * DAY_S)
    assert found["failures_per_day"] == pytest.approx([0.01, 8.64])


@pytest.mark.parametrize("scaling", ["strong", "weak"])
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(global_batch_size=2048, zero_stage=3, flash_attention=True), id="sharded"),
        pytest.param(Plan(tp_size=8, pp_size=4, global_batch_size=4096, overlap_grad_reduce=True), id="all-three"),
        pytest.param(Plan(tp_size=2, cp_size=2, global_batch_size=512, recompute="full"), id="context"),
    ],
)
def test_what_never_may_be(plan: Plan, scaling: Any) -> None:
    found = answer(plan, scaling=scaling)
    runs = found.used > 0
    assert sorted(found.reasons) == np.flatnonzero(~runs).tolist()
    assert np.all(found.used <= found.accelerators)
    for name, value in found.values.items():
        assert np.all(np.isnan(value.value[~runs])), name
        assert np.all(value.value[runs] >= 0), name
        assert value.method in {"modelled", "assumed"}
        assert value.how
    assert found["step_time_s"][runs] == pytest.approx(sum(found[p] for p in PARTS)[runs])
    for share in ("training_goodput_frac", "exposed_comm_frac", "bubble_frac", "mfu"):
        assert np.all(found[share][runs] <= 1)
    assert np.all(found["training_goodput_frac"][runs] > 0)
    assert np.all(np.diff(found["failures_per_day"][runs]) >= 0)
    assert np.all(np.diff(found["training_goodput_frac"][runs]) <= 0)


def test_one_accelerator_has_no_communication_and_no_bubble() -> None:
    found = answer(Plan(global_batch_size=32), [1])
    assert found["exposed_comm_frac"][0] == 0
    assert found["bubble_frac"][0] == 0


def test_strong_scaling_is_never_faster_than_ideal_and_ends_with_the_batch() -> None:
    found = answer(Plan(tp_size=8, global_batch_size=512))
    runs = found.used > 0
    ideal = found["step_time_s"][runs][0] * found.used[runs][0] / found.used[runs]
    assert np.all(found["step_time_s"][runs] >= ideal * (1 - 1e-9))
    assert found.used[-1] == 512 * 8
    assert any("at most 4,096" in n for n in found.notes)


@given(factor=st.floats(1.1, 50))
def test_dearer_dirtier_and_frailer_is_never_better(factor: float) -> None:
    plan = Plan(tp_size=8, global_batch_size=4096)
    base = answer(plan, [4096])
    dearer = answer(plan, [4096], price_usd_per_accelerator_hour=2.0 * factor)
    assert dearer["cost_usd"][0] == pytest.approx(base["cost_usd"][0] * factor)
    frailer = answer(plan, [4096], mtbf_s=1e8 / factor)
    for name in ("train_time_s", "cost_usd", "operational_gco2e", "facility_energy_j"):
        assert frailer[name][0] > base[name][0]
    longer = answer(plan, [4096], tokens=1e12 * factor)
    assert longer["train_time_s"][0] == pytest.approx(base["train_time_s"][0] * factor)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        pytest.param(lambda: answer(Plan(tp_size=3, global_batch_size=8)), "tp_size that divides the heads", id="tp"),
        pytest.param(
            lambda: answer(Plan(), counts=[0]), "accelerators must be a whole number >= 1 and finite, got 0", id="none"
        ),
        pytest.param(lambda: answer(Plan(), counts=[1.5]), "got 1.5", id="half"),
        pytest.param(lambda: answer(Plan(), scaling="strange"), "strong or weak", id="scaling"),
        pytest.param(lambda: answer(Plan(), tokens=0), "tokens must be > 0", id="tokens"),
        pytest.param(
            lambda: answer(Plan(), price_usd_per_accelerator_hour=-1), "price_usd_per_accelerator_hour", id="price"
        ),
        pytest.param(lambda: answer(Plan(), pue=0.9), "pue must be >= 1", id="pue"),
        pytest.param(lambda: answer(Plan(), rated_w=50), "rated power lies above idle", id="power"),
    ],
)
def test_wrong_questions(ask: Any, says: str) -> None:
    with pytest.raises(ModelInputError, match=says):
        ask()


def measured(nodes: Any, scaling: Any = "strong", batch: int = 256, bandwidth: float = 1e9) -> Any:
    step = MeasuredStep(0.008, 0.001, 0.0005, 128, 4e6, "digits-cnn")
    return scale_run(
        step, bandwidth, 1e-5, nodes, global_batch=batch, samples=1e9, conditions=CONDITIONS, scaling=scaling
    )


def test_a_measured_step_by_hand() -> None:
    found = measured([1, 2, 4])
    assert found["compute_time_s"] == pytest.approx([0.016, 0.008, 0.004])
    assert found["data_time_s"] == pytest.approx([0.002, 0.001, 0.0005])
    # two nodes: 2 steps of 10 us and 4 MB over 1 GB/s; four: the halving one, 2 log2 4 steps and 2 * 3/4 of the bytes
    assert found["exposed_dp_comm_time_s"] == pytest.approx([0, 2e-5 + 4e-3, 4e-5 + 6e-3])
    assert found["step_time_s"][1] == pytest.approx(0.008 + 0.001 + 0.0005 + 0.00402)
    assert found.values["data_time_s"].method == "measured"


def test_a_measured_step_without_more_samples_than_nodes() -> None:
    found = measured([64, 1000], batch=256)
    assert found.used.tolist() == [64, 256]
    assert any("at most as many nodes" in n for n in found.notes)
    weak = measured([64, 1000], scaling="weak")
    assert weak["compute_time_s"] == pytest.approx([0.008, 0.008])
    assert weak["samples_per_s"][1] == pytest.approx(128_000 / weak["step_time_s"][1])


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda: measured([0]), id="no-node"),
        pytest.param(lambda: measured([2], scaling="both"), id="scaling"),
        pytest.param(lambda: measured([2], bandwidth=0), id="no-bandwidth"),
        pytest.param(lambda: MeasuredStep(0.0, 0, 0, 1, 1), id="no-time"),
        pytest.param(lambda: MeasuredStep(1.0, 0, 0, 0, 1), id="no-samples"),
    ],
)
def test_a_measured_step_asked_wrongly(ask: Any) -> None:
    with pytest.raises(ModelInputError):
        ask()
