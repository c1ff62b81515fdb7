"""Run by four ranks (see test_mpi_axes.py): the pieces that axes are made of, each against plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.parallel.context import causal_shares
from aiinfra_widgets.parallel.sequence import TokenShares
from aiinfra_widgets.parallel.tensor import cross_entropy_sum, embed_rows, sum_gradients, sum_values
from tests.mpi.axes_rig import SETTINGS, TOLERANCE, WORLD, apart, axes_of, batch, everywhere, whole_numbers


def test_an_axis_of_one_rank_costs_nothing():
    with axes_of(WORLD, context=6, sequence_parallel=True) as axes:
        x, tokens = batch((2, 6, 3)).requires_grad_(), whole_numbers(5, (2, 6))
        untouched = [f(x) is x for f in (axes.enter, axes.leave, axes.scatter_tokens, axes.whole_sequence)]
        untouched += [axes.take(tokens) is tokens, axes.positions(6) is None, not axes.sequence_parallel]
        axes.embed(tokens, batch((5, 3)), 5)
        axes.cross_entropy_sum(x.flatten(0, 1), whole_numbers(3, (12,)), 3).backward()
        calls = axes.tp.ledger.calls + axes.cp.ledger.calls
    assert all(WORLD.allgather(all(untouched) and not calls))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_sums_of_tensors_of_any_layout_and_type(ranks, dtype):
    """Whole numbers up to 256 are exact in all of these types, so are the sums."""

    def measure(shape, comm):
        with axes_of(comm, ranks) as axes:
            numbers = whole_numbers(16, shape).to(dtype)
            x = (numbers * (comm.rank + 1)).transpose(0, -1).requires_grad_()
            weights = (numbers.transpose(0, -1) + comm.rank).expand_as(x)
            total = ranks * (ranks + 1) // 2
            found = sum_values(x, axes.tp)
            (found * weights).sum().backward()
            wrong = [(found - total * numbers.transpose(0, -1)).any(), (x.grad - weights).any(), found.dtype != dtype]
            x.grad = None
            found = sum_gradients(x, axes.tp)
            (found * weights).sum().backward()
            summed = ranks * numbers.transpose(0, -1) + total - ranks
            wrong += [(found - x).any(), (x.grad - summed).any(), found.dtype != dtype]
            plain = x.detach()
            wrong += [sum_gradients(plain, axes.tp) is not plain, (x - plain).any()]
            return float(any(bool(w) for w in wrong))

    everywhere(ranks, measure, st.lists(st.integers(1, 5), min_size=1, max_size=4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_tokens_gathered_scattered_and_summed(ranks, dtype):
    """Each of the three moves, forward and backward, against indexing; tokens lie uneven, or in two runs."""

    def measure(shape, comm):
        samples, tokens, width = shape
        whole = whole_numbers(16, (samples, width, tokens)).to(dtype).transpose(1, 2)  # not contiguous
        total = ranks * (ranks + 1) // 2
        wrong = []
        with axes_of(comm, ranks, context=tokens, sequence_parallel=True) as axes:
            here = TokenShares.contiguous(tokens, ranks).places(comm.rank)
            part = whole[:, here].requires_grad_()
            found = axes.enter(part)
            (found * whole * (comm.rank + 1)).sum().backward()
            wrong += [(found - whole).any(), (part.grad - total * whole[:, here]).any()]
            x = (whole * (comm.rank + 1)).requires_grad_()
            found = axes.leave(x)
            (found * whole[:, here]).sum().backward()
            wrong += [(found - total * whole[:, here]).any(), (x.grad - whole).any()]
            x = whole.clone().requires_grad_()
            found = axes.scatter_tokens(x)
            (found * whole[:, here]).sum().backward()
            wrong += [(found - whole[:, here]).any(), (x.grad - whole).any()]
        with axes_of(comm, 1, ranks, context=tokens) as axes:
            part = axes.take(whole).requires_grad_()
            places = axes.positions(part.shape[1])
            found = axes.whole_sequence(part)
            (found * whole * (comm.rank + 1)).sum().backward()
            wrong += [(found - whole).any(), (part - whole[:, places]).any(), (places.diff() <= 0).any()]
            wrong += [(part.grad - total * whole[:, places]).any(), found.dtype != dtype]
        return float(any(bool(w) for w in wrong))

    everywhere(ranks, measure, st.tuples(st.integers(1, 3), st.integers(ranks, 17), st.integers(1, 4)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_vocabulary_in_parts(ranks, dtype):
    """Narrow types are held against float32 arithmetic on the same numbers; logits of 1e4 must not overflow."""
    near = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]

    def measure(example, comm):
        count, vocab, scale = example
        with axes_of(comm, ranks) as axes:
            mine = axes.mine(vocab)
            logits, targets = (scale * batch((count, vocab))).to(dtype), whole_numbers(vocab, (count,))
            wide = logits.double().clone().requires_grad_()
            F.cross_entropy(wide, targets, reduction="sum").mul(0.5).backward()
            part = logits[:, mine].clone().requires_grad_()
            found = cross_entropy_sum(part, targets, mine, axes.tp)
            (0.5 * found).backward()
            wanted = F.cross_entropy(wide.detach(), targets, reduction="sum")
            table = batch((vocab, 3), 5).to(dtype)
            rows = table[mine].clone().requires_grad_()
            looked = sum_values(embed_rows(targets, rows, mine), axes.tp)
            looked.sum().backward()
            worst = [apart(found.detach().double(), wanted), apart(part.grad.double(), wide.grad[:, mine])]
            worst += [
                apart(looked.detach(), table[targets]),
                apart(rows.grad[:, 0], targets.bincount(minlength=vocab)[mine]),
            ]
            return max(worst) / near * TOLERANCE

    scales = st.sampled_from([1.0, 30.0, 1e4])
    everywhere(ranks, measure, st.tuples(st.integers(1, 9), st.integers(ranks, 19), scales))


def test_the_maximum_over_the_ranks():
    with axes_of(WORLD, 4) as axes:
        x = torch.tensor([-1.0, 2.0, -3.0], dtype=torch.bfloat16) * (1 + WORLD.rank)
        axes.tp.all_reduce(x, maximum=True)
        sent = axes.tp.ledger.calls[-1].sent_bytes
    assert all(WORLD.allgather(x.tolist() == [-1.0, 8.0, -3.0] and sent > 0))


@given(st.integers(1, 64), st.integers(1, 8))
@SETTINGS
def test_every_token_has_one_holder_and_the_causal_work_is_even(tokens, ranks):
    shares = causal_shares(tokens, ranks)
    places = [shares.places(rank) for rank in range(ranks)] if tokens >= ranks else []
    assert shares.total == tokens
    if places:
        assert torch.cat(places).sort().values.tolist() == list(range(tokens))
    if ranks > 1 and tokens % (2 * ranks) == 0:
        assert len({int((mine + 1).sum()) for mine in places}) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelInputError, match="of 3 tokens cannot be cut into 4"), axes_of(WORLD, 1, 4, context=3):
        pass
    with (
        pytest.raises(ModelInputError, match="of 0 tokens cannot be cut into 4"),
        axes_of(WORLD, 4, sequence_parallel=True),
    ):
        pass
    with axes_of(WORLD, 2, 2, context=8, sequence_parallel=True) as axes:
        for call, got, wanted in (
            (lambda: axes.take(whole_numbers(5, (1, 7))), 7, 8),
            (lambda: axes.positions(8), 8, 4),
            (lambda: axes.whole_sequence(batch((1, 2, 1, 1))), 2, 4),
            (lambda: axes.enter(batch((1, 4, 1))), 4, 2),
            (lambda: axes.leave(batch((1, 2, 1))), 2, 4),
        ):
            with pytest.raises(
                ModelInputError, match=f"got {got} of each sequence, .* holds {wanted} of the context of 8"
            ):
                call()
