"""The language model: a cache changes nothing but the work, a batch changes nothing, and the declared counts are exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from aiinfra_widgets.errors import ModelInputError, UnknownNameError
from aiinfra_widgets.workloads.gpt import Decoder, Gpt
from aiinfra_widgets.workloads.gpt_facts import GptFacts, gpt_facts

SMALL = GptFacts("small", layers=2, width=24, heads=3, vocab=40, context=32)
TINY = gpt_facts("gpt-tiny")
ALL = pytest.mark.parametrize("facts", [SMALL, TINY], ids=lambda f: f.name)


@pytest.fixture(scope="module")
def net() -> Gpt:
    return Gpt(SMALL, seed=3)


def prompt(facts: GptFacts, batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(facts.vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def whole(net: Gpt, tokens: list[int]) -> torch.Tensor:
    """Logits after `tokens`, computed anew from all of them."""
    return Decoder(net, 1).prefill(torch.tensor([tokens]))[0]


@ALL
def test_decoding_with_the_cache_equals_reading_everything_again(facts):
    net = Gpt(facts, seed=1)
    decoder, said = Decoder(net, 1), prompt(facts, 1, 5)[0].tolist()
    logits = decoder.prefill(torch.tensor([said]))
    for _ in range(20):
        torch.testing.assert_close(logits[0], whole(net, said), rtol=1e-4, atol=1e-5)
        said.append(int(logits.argmax()))
        logits = decoder.decode_step(torch.tensor(said[-1:]))
    assert decoder.lengths == [25]


def test_every_earlier_token_counts_and_no_later_one(net):
    tokens = prompt(SMALL, 1, 9)[0].tolist()
    for place in range(9):
        other = list(tokens)
        other[place] = (other[place] + 1) % SMALL.vocab
        assert not torch.allclose(whole(net, other), whole(net, tokens), atol=1e-6), place
        if place:
            torch.testing.assert_close(whole(net, other[:place]), whole(net, tokens[:place]))
    swapped = [tokens[1], tokens[0], *tokens[2:]]
    assert tokens[0] != tokens[1]
    assert not torch.allclose(whole(net, swapped), whole(net, tokens), atol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 12)), min_size=1, max_size=12), st.integers(1, 4))
def test_joining_and_leaving_a_batch_changes_no_answer(asked, slots):
    """Sequences of (prompt, answer) tokens go through `slots` slots; each says what it says alone."""
    net = Gpt(SMALL, seed=2)
    decoder, waiting, running, said = Decoder(net, slots), list(enumerate(asked)), [], {}
    while waiting or running:
        if running:
            logits = decoder.decode_step(torch.tensor([said[i][-1] for i, _ in running]))
            for (i, _), row in zip(running, logits, strict=True):
                said[i].append(int(row.argmax()))
        if waiting and len(running) < slots:
            i, (length, count) = waiting.pop(0)
            said[i] = prompt(SMALL, 1, length, i)[0].tolist()
            said[i].append(int(decoder.prefill(torch.tensor([said[i]])).argmax()))
            running.append((i, length + count))
        for slot in reversed(range(len(running))):
            i, wanted = running[slot]
            if len(said[i]) == wanted:
                decoder.drop(slot)
                running[slot] = running[-1]
                running.pop()
    for i, (length, count) in enumerate(asked):
        alone = prompt(SMALL, 1, length, i)[0].tolist()
        for _ in range(count):
            alone.append(int(whole(net, alone).argmax()))
        assert said[i] == alone


def test_prompts_read_together_are_read_as_alone(net):
    tokens = prompt(SMALL, 4, 6)
    together = Decoder(net, 5)
    torch.testing.assert_close(together.prefill(tokens), torch.stack([whole(net, t.tolist()) for t in tokens]))
    torch.testing.assert_close(together.prefill(tokens[:1])[0], whole(net, tokens[0].tolist()))


@ALL
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 16), (3, 7)])
def test_declared_arithmetic_is_what_torch_counts(facts, batch, tokens):
    decoder = Decoder(Gpt(facts, seed=0), batch + 1)
    with FlopCounterMode(display=False) as prefill:
        logits = decoder.prefill(prompt(facts, batch, tokens))
    assert prefill.get_total_flops() == facts.prefill_flop(batch, tokens) > 0
    decoder.prefill(prompt(facts, 1, 3))
    longest, said = max(tokens, 3) + 1, torch.cat([logits.argmax(1), torch.tensor([0])])
    with FlopCounterMode(display=False) as decode:
        decoder.decode_step(said)
    assert decode.get_total_flops() == facts.decode_flop(batch + 1, longest) > 0


@ALL
def test_declared_sizes_are_those_of_the_tensors(facts):
    net = Gpt(facts, seed=0)
    assert facts.params == sum(p.numel() for p in net.parameters())
    decoder = Decoder(net, 5)
    assert decoder.cache.numel() * decoder.cache.element_size() == 5 * facts.context * facts.cache_bytes_per_token
    # One token reads every weight but the places; two rows of embeddings, the padded cache; and writes its own row of it.
    parts = {n: p.numel() * 4 for n, p in net.named_parameters()}
    read = sum(parts.values()) - parts["places.weight"]
    rows, cached = 2 * facts.width * 4, facts.cache_bytes_per_token
    assert facts.decode_bytes(3, 10) == read + 3 * rows + 3 * (10 + 1) * cached


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Gpt(SMALL, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = Gpt(SMALL, seed=5).state_dict(), Gpt(SMALL, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["blocks.0.qkv.weight"], other["blocks.0.qkv.weight"])


def test_what_does_not_fit_is_refused(net):
    decoder = Decoder(net, 2)
    with pytest.raises(ModelInputError, match="0 tokens and 33 more; a sequence holds 1 to 32"):
        decoder.prefill(prompt(SMALL, 1, 33))
    with pytest.raises(ModelInputError, match="2 slots"):
        decoder.prefill(prompt(SMALL, 3, 4))
    decoder.prefill(prompt(SMALL, 2, 32))
    with pytest.raises(ModelInputError, match="32 tokens and 1 more"):
        decoder.decode_step(torch.tensor([0, 1]))
    decoder.clear()
    assert decoder.prefill(prompt(SMALL, 2, 4)).shape == (2, SMALL.vocab)
    with pytest.raises(UnknownNameError, match="did you mean 'gpt-tiny'"):
        gpt_facts("gpt-tny")
