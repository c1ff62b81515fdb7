"""Plans: their degrees, the words they accept, and what is no plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import Plan, Transformer, check_plan
from aiinfra_widgets.models.transformer.plan import KERNELS, PRECISION_BYTES, RECOMPUTE, SCHEDULES

MODEL = Transformer(layers=24, hidden=1024, heads=16, seq_len=512, vocab=1000)
MIXTURE = replace(MODEL, experts=8, active_experts=2)
PLAN = Plan(dp_size=4, tp_size=2, pp_size=3, cp_size=2, micro_batch_size=5, global_batch_size=80)


def test_the_job_of_a_plan_by_hand():
    assert PLAN.world_size == 4 * 2 * 3 * 2
    assert PLAN.num_microbatches == 80 / (4 * 5)


@given(dp=st.integers(1, 512), micro=st.integers(1, 16), count=st.integers(1, 64))
@settings(max_examples=30)
def test_the_batch_is_micro_batches_of_all_replicas(dp, micro, count):
    plan = Plan(dp_size=dp, micro_batch_size=micro, global_batch_size=dp * micro * count)
    assert plan.num_microbatches == count


@pytest.mark.parametrize(
    ("shard_size", "shards"),
    [
        pytest.param(0, 8, id="all-of-them"),
        pytest.param(4, 4, id="groups"),
        pytest.param(64, 8, id="no-more-than-there-are"),
    ],
)
def test_weights_are_shared_by_the_ranks_that_have_the_same(shard_size, shards):
    assert replace(PLAN, shard_size=shard_size).weight_shards == shards


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("tf32", 4), ("bf16", 2), ("fp16", 2), ("fp8", 1)])
def test_bytes_of_an_element(precision, size):
    assert Plan(precision=precision).precision_bytes == size


def test_arrays_hold_one_plan_per_element():
    words, sizes = list(PRECISION_BYTES), list(PRECISION_BYTES.values())
    plans = Plan(dp_size=np.arange(1, 6), global_batch_size=120, precision=np.array(words), recompute="full")
    assert plans.precision_bytes.tolist() == sizes
    assert plans.world_size.tolist() == [1, 2, 3, 4, 5]
    assert plans.num_microbatches.tolist() == [120, 60, 40, 30, 24]
    kernels = replace(plans, precision="bf16", attention_kernel=np.resize(KERNELS, 5))
    assert kernels.by_kernel({"flash": 1, "flash_ported": 2, "flash_native": 3}).tolist() == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("field", "words"),
    [("recompute", RECOMPUTE), ("schedule", SCHEDULES), ("precision", PRECISION_BYTES), ("attention_kernel", KERNELS)],
)
def test_every_word_is_taken_and_another_named_with_its_neighbour(field, words):
    for word in words:
        assert str(getattr(Plan(**{field: word}), field)) == word
    wrong = next(iter(words)) + "x"
    with pytest.raises(ModelInputError, match=f"{field} must be one of .*got '{wrong}'; did you mean"):
        Plan(**{field: wrong})
    with pytest.raises(ModelInputError, match=f"got '{wrong}'"):
        Plan(**{field: np.array([next(iter(words)), wrong])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"tp_size": 0}, "tp_size must be a whole number >= 1 and finite, got 0", id="no-rank"),
        pytest.param({"tp_size": 1.5}, "tp_size must be .* got 1.5", id="one-rank-and-a-half"),
        pytest.param({"dp_size": -4}, "dp_size must be .* got -4", id="negative"),
        pytest.param({"pp_size": float("inf")}, "pp_size must be .* got inf", id="infinite"),
        pytest.param({"cp_size": "two"}, "cp_size must be .* got 'two'", id="text"),
        pytest.param({"zero_stage": 4}, "zero_stage must be .*<= 3, got 4", id="no-such-stage"),
        pytest.param({"global_batch_size": 81}, "same whole number of micro-batches", id="batch-that-does-not-divide"),
        pytest.param({"global_batch_size": 10}, "same whole number of micro-batches", id="less-than-one-each"),
        pytest.param({"dp_size": np.array([4, 3])}, "same whole number of micro-batches", id="one-of-an-array"),
    ],
)
def test_what_is_no_plan_is_refused(change, words):
    with pytest.raises(ModelInputError, match=words):
        replace(PLAN, **change)


@pytest.mark.parametrize(
    ("model", "plan", "words"),
    [
        pytest.param(MODEL, Plan(tp_size=3), "choose a tp_size that divides the heads", id="tp-does-not-divide-the-heads"),
        pytest.param(MODEL, Plan(tp_size=32), "choose a tp_size that divides the heads", id="more-tp-than-heads"),
        pytest.param(MODEL, Plan(pp_size=25), "no more stages than layers", id="more-stages-than-layers"),
        pytest.param(MODEL, Plan(pp_size=8, interleave=12), "use fewer chunks", id="more-chunks-than-layers"),
        pytest.param(MODEL, Plan(ep_size=2), "choose an ep_size that divides the experts", id="experts-of-a-dense-model"),
        pytest.param(MIXTURE, Plan(ep_size=3), "choose an ep_size that divides the experts", id="ep-does-not-divide"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit_the_model_is_refused(model, plan, words):
    with pytest.raises(ModelInputError, match=words):
        check_plan(model, plan)


def test_a_plan_that_fits_is_not_refused():
    check_plan(MODEL, PLAN)
    check_plan(MIXTURE, Plan(dp_size=8, global_batch_size=8, ep_size=8))
