import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.rank_memory import activation_bytes, local_params, rank_memory

unit_sizes = st.lists(st.integers(0, 5000), min_size=1, max_size=8)
ranks = st.integers(1, 9)


@pytest.mark.parametrize(
    ("stage", "held", "transient"),
    [
        pytest.param(0, (40, 40, 80), 0, id="everything-everywhere"),
        pytest.param(1, (40, 40, 20), 10, id="a-quarter-of-the-state-and-of-the-received-sum"),
        pytest.param(2, (40, 10, 20), 24 + 6, id="one-unit-whole-and-its-received-quarter"),
        pytest.param(3, (10, 10, 20), 24 + 24, id="one-unit-gathered-and-its-gradient"),
    ],
)
def test_by_hand(stage, held, transient):
    """Units of 16 and 24 numbers on 4 ranks with Adam's two moments; one byte per number."""
    found = rank_memory([16, 24], zero_stage=stage, data_size=4, element_bytes=1, state_tensors=2, activations_bytes=7)
    assert (found.parameters_bytes, found.gradients_bytes, found.optimizer_bytes) == held
    assert found.transient_bytes == transient
    assert found.peak_bytes == sum(held) + transient + 7


def test_the_papers_model_of_7_5_billion_parameters():
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters, 64 ranks, 16 bytes each of which 12 are the optimiser's.

    There parameters and gradients have 2 bytes, so in units of 2 bytes the optimiser has 6 numbers per parameter.
    """
    published_gb = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.9}
    for stage, want in published_gb.items():
        found = rank_memory([75_000_000] * 100, zero_stage=stage, data_size=64, element_bytes=2, state_tensors=6)
        assert found.held_bytes / 1e9 == pytest.approx(want, abs=0.06)


@given(unit_sizes, ranks, st.integers(0, 3), st.integers(0, 2))
def test_what_is_sharded_adds_up_to_one_copy(sizes, n, stage, tensors):
    each = [
        rank_memory(sizes, zero_stage=stage, data_size=n, data_rank=i, element_bytes=1, state_tensors=tensors)
        for i in range(n)
    ]
    copies = [1 if stage >= needed else n for needed in (3, 2, 1)]
    whole = sum(sizes)
    assert sum(m.parameters_bytes for m in each) == copies[0] * whole
    assert sum(m.gradients_bytes for m in each) == copies[1] * whole
    assert sum(m.optimizer_bytes for m in each) == copies[2] * tensors * whole


@given(unit_sizes, ranks, st.integers(0, 2))
def test_the_next_stage_never_holds_more_but_for_uneven_slices(sizes, n, stage):
    now, then = (rank_memory(sizes, zero_stage=s, data_size=n, element_bytes=1).held_bytes for s in (stage, stage + 1))
    # From stage 2 on each unit is cut by itself, so the fullest rank may have one number more of each.
    assert then <= now + 2 * len(sizes)


@given(unit_sizes, ranks, st.integers(0, 3))
def test_without_a_rank_it_is_the_fullest(sizes, n, stage):
    each = [rank_memory(sizes, zero_stage=stage, data_size=n, data_rank=i) for i in range(n)]
    assert rank_memory(sizes, zero_stage=stage, data_size=n).peak_bytes == max(m.peak_bytes for m in each)


@pytest.mark.parametrize(
    ("in_flight", "inputs", "want"),
    [
        pytest.param(1, None, 60, id="all-of-one-micro-batch"),
        pytest.param(3, None, 180, id="all-of-three"),
        pytest.param(1, [4, 5, 6], 9 + 30, id="again-the-middle-unit"),
        pytest.param(3, [4, 5, 6], 30 + 39, id="two-more-wait"),
        pytest.param(1, [4, 5, 90], 119, id="again-with-its-input"),
    ],
)
def test_activations_by_hand(in_flight, inputs, want):
    assert activation_bytes([10, 30, 20], num_in_flight=in_flight, input_bytes=inputs) == want


def test_recomputing_the_first_unit_finds_the_later_inputs_gone():
    assert activation_bytes([100, 1, 1], input_bytes=[4, 5, 6]) == 4 + 100


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=6), st.integers(1, 20))
def test_activations_grow_with_what_is_in_flight(kept, n):
    one, more = (activation_bytes(kept, num_in_flight=i, input_bytes=kept) for i in (n, n + 1))
    assert more - one == pytest.approx(sum(kept), rel=1e-6, abs=1e-3)


def test_a_cut_layer_by_hand():
    """A block of width 8 on 2 ranks: 12 * 64 weights and 3 * 8 + 4 * 8 biases are cut; two norms and two biases are not."""
    assert local_params(12 * 64 + 7 * 8, 4 * 8 + 2 * 8, 2) == 412 + 48
    assert local_params(5, 0, 2) == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rank_memory([1], zero_stage=4), "zero_stage must be 0, 1, 2 or 3, got 4"),
        (lambda: rank_memory([1.5]), "sizes must be a whole number >= 0 and finite, got 1.5"),
        (lambda: rank_memory([1], data_size=0), "data_size must be a whole number >= 1"),
        (lambda: rank_memory([1], data_size=2, data_rank=2), "data_rank must be a whole number >= 0 and <= 1, got 2"),
        (lambda: activation_bytes([1, 2], input_bytes=[1]), "one value for each of 2 units, got 1"),
        (lambda: activation_bytes([1], num_in_flight=0), "num_in_flight"),
        (lambda: local_params(-1, 0, 1), "cut must be"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ModelInputError, match=words):
        call()
