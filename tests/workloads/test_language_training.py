"""The texts, training to a stated loss, and adapters on a trained base."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aiinfra_widgets.errors import DataError
from aiinfra_widgets.workloads import language, language_data, nets
from aiinfra_widgets.workloads.facts import WorkloadFacts
from aiinfra_widgets.workloads.language_facts import (
    ALICE,
    BASES,
    CHARACTERS,
    RANK,
    ROWS,
    SHAKESPEARE,
    Text,
    decoder,
    text_of,
)

FACTS = {row.name: row for row in ROWS}
EVERY = pytest.mark.parametrize("facts", ROWS, ids=lambda f: f.name)


def loaded(facts: WorkloadFacts, cache: Path, seed: int = 0) -> nets.Workload:
    train, test = (tuple(map(torch.from_numpy, part)) for part in language_data.load(facts, seed, cache))
    net = language.net(facts)
    return nets.Workload(facts, net, net.whole(seed), train, test)


def train(w: nets.Workload, steps: int, *, seed: int = 0) -> float:
    """Train as the lab does, with its AdamW; return the held-out loss."""
    trained = [p for p in w.module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=w.facts.default_lr, betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    x, y = w.train
    for _ in range(steps):
        index = torch.randint(len(x), (w.facts.default_batch,), generator=generator)
        optimiser.zero_grad()
        (w.loss_sum(w.module(x[index]), y[index]) / len(index)).backward()
        optimiser.step()
    return w.evaluate(w.module)["held_out_loss"]


# --- the texts


@pytest.mark.parametrize("text", [SHAKESPEARE, ALICE], ids=lambda t: t.name)
def test_a_text_is_what_its_page_says(text, repo):
    folder = repo / "data" / "texts"
    raw = gzip.decompress((folder / f"{text.name}.txt.gz").read_bytes())
    (row,) = re.findall(rf"^\| `{text.name}\.txt\.gz` \|.*$", (folder / "README.md").read_text(), re.M)
    assert f"{text.characters:,}".replace(",", " ") in row
    assert f"`{hashlib.sha256(raw).hexdigest()}`" in row
    assert "github.com" in row
    assert not re.search(rb"gutenberg|copyright|http", raw, re.I)
    tokens = language_data.characters(text)
    assert language_data.written(tokens) == raw.decode("ascii")
    assert (len(tokens), tokens.dtype, int(tokens.max()) < CHARACTERS) == (text.characters, np.uint8, True)


@EVERY
def test_windows_are_of_the_declared_shape_and_shifted_by_one(facts, tmp_path):
    (x, y), (x_test, y_test) = language_data.load(facts, 0, tmp_path)
    (tokens,) = facts.sample_shape
    for part, count in ((x, facts.train_samples), (y, facts.train_samples), (x_test, facts.test_samples)):
        assert (part.shape, part.dtype, part.flags.c_contiguous) == ((count, tokens), np.int64, True)
    assert np.array_equal(x[:, 1:], y[:, :-1])
    assert np.array_equal(x_test[:, 1:], y_test[:, :-1])
    text = text_of(facts.name)
    raw = language_data.characters(text)
    # An epoch reads the training part once, in order, but for a rest shorter than a window.
    assert np.array_equal(x.ravel(), raw[: x.size])
    assert text.train_characters - tokens - 1 <= x.size < text.train_characters
    held_out = language_data.written(raw[text.train_characters :])
    assert all(language_data.written(row) in held_out for row in x_test)
    assert held_out.startswith(language_data.written(x_test[0]))
    assert held_out.endswith(language_data.written(y_test[-1]))
    assert facts.default_batch <= facts.train_samples
    assert not list(tmp_path.iterdir())


def test_the_seed_changes_no_window(tmp_path):
    one, two = (language_data.load(FACTS["gpt-char"], seed, tmp_path) for seed in (0, 1))
    assert all(np.array_equal(a, b) for i in (0, 1) for a, b in zip(one[i], two[i], strict=True))


def test_a_text_that_is_gone_or_damaged_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(language_data, "data_folder", lambda: tmp_path)
    gone = Text("gone", 5)
    with pytest.raises(DataError, match=r"gone\.txt\.gz: cannot be read .*reinstall"):
        language_data.characters(gone)
    (tmp_path / "texts").mkdir()
    whole = gzip.compress(b"abcdefgh" * 100)
    for content, word in (
        (whole[:-20], "cannot be read"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"abcd"), "holds 4 characters, expected 5"),
        (gzip.compress("abcé".encode()), "all ASCII"),
        (gzip.compress(b"abcd\r"), "all ASCII"),
    ):
        (tmp_path / "texts" / "gone.txt.gz").write_bytes(content)
        with pytest.raises(DataError, match=word):
            language_data.characters(gone)


# --- training


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.slow)])
def small(request, tmp_path_factory) -> tuple[nets.Workload, float]:
    """The small one as its goal says, and the loss it reached."""
    torch.set_num_threads(1)
    w = loaded(FACTS["gpt-char"], tmp_path_factory.mktemp("cache"), request.param)
    return w, train(w, w.facts.goal_steps, seed=request.param)


def test_the_small_one_reaches_its_goal(small):
    w, reached = small
    assert reached <= w.facts.goal


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_default_reaches_its_goal(seed, tmp_path):
    w = loaded(FACTS["gpt-char-1m"], tmp_path, seed)
    assert train(w, w.facts.goal_steps, seed=seed) <= w.facts.goal


def test_it_learns_order_and_not_only_frequencies(tmp_path):
    """Better than the best guess that sees one character, which needs attention."""
    read = language_data.characters(SHAKESPEARE)[: SHAKESPEARE.train_characters]
    pairs = np.ones((CHARACTERS, CHARACTERS))
    np.add.at(pairs, (read[:-1], read[1:]), 1)
    w = loaded(FACTS["gpt-char"], tmp_path)
    rate = np.log(pairs / pairs.sum(1, keepdims=True))
    bigram = -rate[w.test[0].numpy(), w.test[1].numpy()].mean()
    assert w.facts.goal < bigram


# --- adapters


def adapted(tmp_path: Path) -> nets.Workload:
    """Adapters on the small one, which the shipped row has on the default."""
    (tokens,) = FACTS["gpt-char"].sample_shape
    facts = replace(
        FACTS["gpt-char-lora"],
        sample_shape_of=lambda width, depth: (tokens,),
        layers_of=lambda width, depth: decoder(width, depth, 4, CHARACTERS, tokens, RANK),
        width=FACTS["gpt-char"].width,
        depth=FACTS["gpt-char"].depth,
    )
    return loaded(facts, tmp_path)


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def test_adapters_on_a_trained_base_beat_those_on_a_drawn_one_and_the_base(small, tmp_path):
    base = arrays_of(small[0].module)
    trained, drawn = adapted(tmp_path), adapted(tmp_path)
    language.load_base(trained.module, base)
    before = trained.evaluate(trained.module)["held_out_loss"]
    x, _ = small[0].test
    assert torch.equal(trained.module(x[:8]), small[0].module(x[:8])), "adapters add something at first"
    after, without = train(trained, 60), train(drawn, 60)
    assert after < before - 0.1
    assert after < without - 0.2
    for name, p in trained.module.named_parameters():
        if "lora_" in name:
            assert p.detach().abs().max() > 0, name
        else:
            assert np.array_equal(p.detach().numpy(), base[name]), name


def test_only_the_adapters_are_trained():
    facts = FACTS["gpt-char-lora"]
    base = FACTS[BASES[facts.name]]
    assert facts.params == 16 * RANK * facts.width * facts.depth
    assert sum(layer.fixed_params for layer in facts.layers()) == base.params
    module = language.net(facts).whole(0)
    assert {n.rsplit(".", 1)[1] for n, p in module.named_parameters() if p.requires_grad} == {"lora_a", "lora_b"}
    # No product of a weight's gradient for the base: less arithmetic than training it, though there is more to multiply.
    assert facts.flop_forward_per_sample > base.flop_forward_per_sample
    assert facts.flop_per_sample < base.flop_per_sample


def test_a_base_that_does_not_fit_is_refused_and_changes_nothing():
    facts = FACTS["gpt-char-lora"]
    module, own = (language.net(facts).whole(seed) for seed in (0, 1))
    before = arrays_of(module)
    fits = arrays_of(own)
    with pytest.raises(DataError, match=r"nothing for block3\.down\.bias, expected \(144,\)"):
        language.load_base(module, {n: a for n, a in fits.items() if n != "block3.down.bias"})
    with pytest.raises(DataError, match=r"the base has \(96, 64\) for embed\.tokens\.weight, expected \(96, 144\)"):
        language.load_base(module, arrays_of(language.net(FACTS["gpt-char"]).whole(0)))
    assert all(np.array_equal(a, before[n]) for n, a in arrays_of(module).items())
    language.load_base(module, fits | {"moments": np.zeros(3)})
    after = arrays_of(module)
    assert all(np.array_equal(a, before[n] if "lora_" in n else fits[n]) for n, a in after.items())
