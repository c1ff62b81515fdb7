"""Pipelines: idle time by the printed formulas, and which stage the others wait for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import Plan, Transformer
from aiinfra_widgets.models.transformer.pipeline import IDLE, bubble_frac, plan_bubble_frac, slowest_stage
from aiinfra_widgets.models.transformer.plan import SCHEDULES

stages, batches, chunks = st.integers(1, 64), st.integers(1, 512), st.integers(1, 12)


def deal(layers, stages, *, layer_s=1.0, head_s=0.0):
    model = Transformer(layers=layers, hidden=8, heads=1, seq_len=1, vocab=1)
    found = slowest_stage(model, Plan(pp_size=stages), layer_s, head_s, 0.1)
    return int(found.layers), int(found.heads), int(found.embeddings)


@pytest.mark.parametrize(
    ("stages", "count", "interleave", "schedule", "want"),
    [
        pytest.param(1, 1, 1, "1f1b", 0, id="one-stage-is-never-idle"),
        pytest.param(4, 8, 1, "gpipe", 3 / 8, id="gpipe"),
        pytest.param(4, 8, 1, "1f1b", 3 / 8, id="1f1b-idles-as-long"),
        pytest.param(4, 8, 2, "interleaved", 3 / 16, id="interleaved"),
        pytest.param(4, 8, 1, "zero_bubble", 1 / 8, id="zero-bubble-h1-a-third"),
        pytest.param(8, 1, 1, "1f1b", 7, id="one-micro-batch"),
    ],
)
def test_idle_time_by_hand(stages, count, interleave, schedule, want):
    assert bubble_frac(stages, count, interleave, schedule) == pytest.approx(want)


def test_dimensions_of_idle_time(u):
    assert bubble_frac(u.Quantity(4, ""), u.Quantity(8, ""), u.Quantity(2, "")).check("[]")


@given(stages, batches, chunks)
@settings(max_examples=50)
def test_more_stages_idle_more_and_more_micro_batches_or_chunks_less(p, m, v):
    here = bubble_frac(p, m, v, "interleaved")
    assert bubble_frac(p + 1, m, v, "interleaved") > here
    assert bubble_frac(p, m + 1, v, "interleaved") <= here
    assert bubble_frac(p, m, v + 1, "interleaved") <= here
    assert bubble_frac(p, m, 1, "zero_bubble") <= bubble_frac(p, m, 1, "1f1b") == bubble_frac(p, m, 1, "gpipe")


def test_every_schedule_has_its_idle_time_and_plans_have_that_of_their_own():
    assert set(IDLE) == set(SCHEDULES)
    plans = Plan(pp_size=4, global_batch_size=8, schedule=np.array(SCHEDULES), interleave=np.array([1, 1, 2, 1]))
    want = [bubble_frac(4, 8, v, s) for v, s in zip((1, 1, 2, 1), SCHEDULES, strict=True)]
    assert plan_bubble_frac(plans).tolist() == pytest.approx(want)


@pytest.mark.parametrize(
    "numbers", [(0, 8, 1), (4, 0, 1), (4, 8, 0), (1.5, 8, 1), (4, 8, 1.5), (4, float("nan"), 1)], ids=str
)
def test_what_is_no_pipeline_is_refused(numbers):
    with pytest.raises(ModelInputError):
        bubble_frac(*numbers)


@pytest.mark.parametrize(
    ("layers", "stages", "head_s", "want"),
    [
        pytest.param(8, 1, 0.5, (8, 1, 1), id="one-stage-has-everything"),
        pytest.param(8, 4, 0.0, (2, 0, 0), id="even"),
        pytest.param(8, 4, 0.5, (2, 1, 0), id="even-the-last-computes-the-loss-too"),
        pytest.param(9, 4, 0.5, (3, 0, 0), id="uneven-the-last-has-the-fewest"),
        pytest.param(11, 4, 1.5, (2, 1, 0), id="uneven-but-the-loss-is-long"),
        # BigScience: 70 layers on 12 stages; embedding and output take a layer's place each, so that 72 divide.
        pytest.param(70, 12, 0.5, (6, 0, 0), id="bloom"),
        pytest.param(70, 12, 1.5, (5, 1, 0), id="bloom-with-a-long-loss"),
        pytest.param(5, 4, 9.0, (0, 1, 0), id="nothing-but-the-loss"),
    ],
)
def test_the_slowest_stage_by_hand(layers, stages, head_s, want):
    assert deal(layers, stages, head_s=head_s) == want


@given(layers=st.integers(1, 200), stages=st.integers(1, 32), head_s=st.floats(0, 5))
@settings(max_examples=50)
def test_no_stage_is_faster_than_an_equal_share(layers, stages, head_s):
    most, heads, embeddings = deal(layers, min(stages, layers), head_s=head_s)
    assert most + heads * head_s >= (layers + head_s) / min(stages, layers) - 1e-9
    assert most <= layers
    assert embeddings == (min(stages, layers) == 1)


@given(share=st.integers(1, 20), stages=st.integers(1, 32), head_s=st.floats(0, 5))
@settings(max_examples=40)
def test_one_layer_more_for_each_stage_takes_one_layer_longer(share, stages, head_s):
    def time_s(layers):
        most, heads, _ = deal(layers, stages, head_s=head_s)
        return most + heads * head_s

    assert time_s((share + 1) * stages) == pytest.approx(time_s(share * stages) + 1)
