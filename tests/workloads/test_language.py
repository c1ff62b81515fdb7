"""The language models as nets: declared counts against torch's, another implementation, gradients, precision, the draw."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.workloads import language
from aiinfra_widgets.workloads.axes import ALONE
from aiinfra_widgets.workloads.facts import WorkloadFacts
from aiinfra_widgets.workloads.language_facts import BASES, CHARACTERS, ROWS
from aiinfra_widgets.workloads.parts import assemble

FACTS = {row.name: row for row in ROWS}
SIZED = [
    pytest.param(FACTS["gpt-char"].sized(16, 1), id="one-head"),
    pytest.param(FACTS["gpt-char"].sized(48, 3), id="three-heads"),
    pytest.param(FACTS["gpt-char-1m"], id="1m"),
    pytest.param(FACTS["gpt-char-lora"], id="lora"),
]
AT = pytest.mark.parametrize("facts", SIZED)
SMALL = FACTS["gpt-char"].sized(48, 3)


def whole(facts: WorkloadFacts, seed: int = 0) -> nn.Sequential:
    return language.net(facts).whole(seed)


def batch(facts: WorkloadFacts, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(facts.outputs, (2, size, *facts.sample_shape), generator=torch.Generator().manual_seed(seed))
    return drawn[0], drawn[1]


def loss_of(module: nn.Module, x: Tensor, y: Tensor, axes=ALONE) -> Tensor:
    logits = module(x).flatten(0, 1)
    return axes.cross_entropy_sum(logits, y.flatten(), logits.shape[1]) / y.shape[1]


def awake(module: nn.Module) -> nn.Module:
    """Adapters add nothing at first; drawn at random they do, and so do biases and norms."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim == 1 or name.endswith("lora_b"):
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


# --- what is declared


@AT
@pytest.mark.parametrize("size", [1, 3])
def test_flop_equal_what_torch_counts(facts, size):
    module, (x, y) = whole(facts), batch(facts, size)
    with sdpa_kernel(SDPBackend.MATH):  # torch does not count the fused kernel of the CPU; a GPU's repeats the scores
        with FlopCounterMode(display=False) as forward:
            loss = loss_of(module, x, y)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert forward.get_total_flops() == size * facts.flop_forward_per_sample > 0
    assert backward.get_total_flops() == size * (facts.flop_per_sample - facts.flop_forward_per_sample)


@AT
def test_every_layer_declares_its_parameters_and_sizes(facts):
    module = whole(facts)
    owned = dict(module.named_parameters())
    *layers, loss = facts.layers()
    for layer in layers:
        own = [p for n, p in owned.items() if n == layer.name or (n.startswith(layer.name + ".") and "lora" not in n)]
        assert layer.params == sum(p.numel() for p in own if p.requires_grad), layer.name
        assert layer.fixed_params == sum(p.numel() for p in own if not p.requires_grad), layer.name
    assert facts.params == sum(p.numel() for p in owned.values() if p.requires_grad)
    (x, _), seen = batch(facts, 1), {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, (i[0].numel(), o.numel())))
    logits = module(x)
    for layer in layers:
        if layer.name in seen:
            assert (layer.in_elements, layer.out_elements) == seen[layer.name], layer.name
    assert (loss.kind, loss.in_elements, facts.outputs) == ("loss", logits.numel(), logits.shape[-1])


@AT
def test_activation_bytes_equal_what_autograd_keeps(facts):
    module, (x, y), kept = whole(facts), batch(facts, 5), {}
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim and storage.data_ptr() not in own:  # a scalar belongs to the batch, not to a sample
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    both = x.clone(), y.clone()  # storages of their own
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = loss_of(module, *both)
    assert sum(kept.values()) == 5 * facts.activation_bytes_per_sample
    assert loss.requires_grad


@pytest.mark.parametrize(
    ("name", "params"),
    [("gpt-char-1m", 1e6), ("gpt-char-10m", 10e6), ("gpt-124m", 124e6), ("gpt-350m", 350e6), ("gpt-1.3b", 1.3e9)],
)
def test_a_preset_has_the_size_of_its_name(name, params):
    facts = FACTS[name]
    assert facts.params == pytest.approx(params, rel=0.09)
    with torch.device("meta"):
        net = language.net(facts)
        assert sum(p.numel() for p in assemble(net.parts, ALONE).parameters()) == facts.params
    if params > 1e8:  # 6 flop for each parameter and token, and what attention adds
        per_token = facts.flop_per_sample / facts.sample_shape[0]
        tables = sum(layer.params for layer in facts.layers() if layer.kind == "embedding")
        assert 1 < per_token / (6 * (facts.params - tables)) < 1.25


def test_hand_computed():
    facts = FACTS["gpt-char"].sized(16, 1)
    block = 4 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
    assert facts.params == CHARACTERS * 16 + 64 * 16 + block + 2 * 16 + CHARACTERS * 16
    products = 2 * 64 * 16 * (48 + 16 + 64 + 64)
    attention, head = 4 * 64 * 64 * 16, 2 * 64 * 16 * CHARACTERS
    assert facts.flop_forward_per_sample == products + attention + head
    # nothing is frozen: every product costs two more backward, for the embedding before it is trained
    assert facts.flop_per_sample == 3 * facts.flop_forward_per_sample


def test_costs_of_the_parts_add_up():
    for facts in ROWS:
        net = language.net(facts)
        assert sum(part.cost for part in net.parts) == facts.flop_forward_per_sample
        assert [p.name for p in net.parts] == ["embed", *(f"block{i}" for i in range(facts.depth)), "head"]


@pytest.mark.parametrize(("width", "word"), [(72, "try 64 or 80|try 64|try 80"), (320 + 8, "try 320"), (8, "width")])
def test_a_width_without_whole_heads_is_refused(width, word):
    with pytest.raises(ModelInputError, match=word):
        FACTS["gpt-char"].sized(width, 2).layers()


def test_facts_are_pure():
    code = (
        "import sys; from aiinfra_widgets.workloads import language_facts as f\n"
        "assert [r.flop_per_sample for r in f.ROWS]\n"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'numpy', 'mpi4py', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# --- what is computed


def reference(p: dict[str, Tensor], x: Tensor, blocks: int, heads: int) -> Tensor:
    """The same decoder from its parameters, by einsum and an explicit mask; nothing of the lab in it."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def product(x: Tensor, name: str) -> Tensor:
        weight = p[f"{name}.weight"]
        if f"{name}.lora_a" in p:
            weight = weight + 2.0 * p[f"{name}.lora_b"] @ p[f"{name}.lora_a"]
        return torch.einsum("bti,oi->bto", x, weight) + p[f"{name}.bias"]

    B, T = x.shape
    x = p["embed.tokens.weight"][x] + p["embed.places.weight"][:T]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    for i in range(blocks):
        q, k, v = product(norm(x, f"block{i}.norm1"), f"block{i}.qkv").view(B, T, 3, heads, -1).unbind(2)
        scores = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
        found = torch.einsum("bhts,bshk->bthk", scores.masked_fill(later, -math.inf).softmax(-1), v)
        x = x + product(found.reshape(B, T, -1), f"block{i}.out")
        wide = product(norm(x, f"block{i}.norm2"), f"block{i}.up")
        wide = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        x = x + product(wide, f"block{i}.down")
    return norm(x, "head.norm") @ p["head.logits.weight"].T


@AT
def test_alone_it_is_the_reference_in_value_and_gradient(facts):
    module, (x, y) = awake(whole(facts).double()), batch(facts, 3)
    parameters = dict(module.named_parameters())
    copies = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in parameters.items()}
    heads = facts.layers()[4 if facts.name != "gpt-char-lora" else 6].dims["heads"]
    logits = reference(copies, x, facts.depth, heads)
    torch.testing.assert_close(module(x), logits, rtol=1e-11, atol=1e-11)
    loss_of(module, x, y).backward()
    (F.nll_loss(logits.log_softmax(-1).flatten(0, 1), y.flatten(), reduction="sum") / x.shape[1]).backward()
    for name, p in parameters.items():
        if p.requires_grad:
            assert p.grad.abs().max() > 0, name
            torch.testing.assert_close(p.grad, copies[name].grad, rtol=1e-9, atol=1e-12)
        else:
            assert p.grad is None, name


def test_gradients_equal_finite_differences():
    module, (x, y) = awake(whole(FACTS["gpt-char"].sized(16, 1)).double()), batch(SMALL, 2)
    loss_of(module, x, y).backward()
    generator = torch.Generator().manual_seed(3)
    for name, p in module.named_parameters():
        towards = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                p.add_(step * towards)
                values.append(float(loss_of(module, x, y)))
                p.sub_(step * towards)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float((p.grad * towards).sum()), rel=1e-5, abs=1e-7), (
            name
        )


def test_no_token_sees_a_later_one():
    module, (x, _) = whole(SMALL), batch(SMALL, 1)
    other = x.clone()
    other[0, 40] = (other[0, 40] + 1) % SMALL.outputs
    before, after = module(x), module(other)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:], atol=1e-4)


class Places(type(ALONE)):
    """One process that is told where its tokens are, as a context-parallel rank is."""

    def __init__(self, places: Tensor) -> None:
        self.places = places

    def positions(self, tokens: int) -> Tensor:
        assert tokens == len(self.places)
        return self.places


def test_given_places_mask_as_counted_ones_do():
    net, (x, _) = language.net(SMALL), batch(SMALL, 2)
    module = awake(net.whole(1).double())
    told = assemble(net.parts, Places(torch.arange(64))).double()
    told.load_state_dict(module.state_dict())
    torch.testing.assert_close(told(x), module(x), rtol=1e-11, atol=1e-11)


def test_half_precision_follows_full():
    module, (x, y) = whole(SMALL), batch(SMALL, 4)
    want = loss_of(module, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(x)
        assert logits.dtype == torch.bfloat16
        got = loss_of(module, x, y)
    got.backward()
    assert got.item() == pytest.approx(want.item(), rel=0.01)
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = whole(SMALL, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    again, other = whole(SMALL, 5).state_dict(), whole(SMALL, 6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["block0.qkv.weight"], other["block0.qkv.weight"])
    lora = FACTS["gpt-char-lora"]
    base, under = whole(FACTS[BASES[lora.name]], 5).state_dict(), whole(lora, 5).state_dict()
    assert all(torch.equal(base[k], under[k]) for k in base)
    assert {k.rsplit(".", 1)[1] for k in under.keys() - base.keys()} == {"lora_a", "lora_b"}


def test_what_is_drawn_says_nothing_yet():
    """Near the loss of a fair guess, whatever the depth: nothing dies or explodes."""
    for depth in (1, 16):
        facts = FACTS["gpt-char"].sized(64, depth)
        module, (x, y) = whole(facts), batch(facts, 2)
        assert loss_of(module, x, y).item() / 2 == pytest.approx(math.log(CHARACTERS), abs=0.1)
        assert 0.5 < module[:-1](x).std().item() / module[:1](x).std().item() < 4


# --- how it may be cut


@pytest.mark.parametrize("name", ["gpt-char", "gpt-char-lora"])
@pytest.mark.parametrize("size", [2, 3])
def test_cut_parts_have_the_shapes_of_their_cuts_and_make_up_the_whole(name, size):
    facts = FACTS[name]
    net = language.net(facts)
    module = awake(net.whole(4))
    for part in net.parts:
        made = dict(module.get_submodule(part.name).named_parameters())
        again = {n: torch.full_like(p, math.nan) for n, p in made.items()}
        assert part.cuts.keys() | part.partial <= made.keys()
        assert not part.cuts.keys() & part.partial
        for rank in range(size):
            axes = type(ALONE)()
            axes.tp_size, axes.tp_rank = size, rank
            local = dict(part.build(axes).named_parameters())
            for n, p in made.items():
                share = part.cuts[n].take(p.detach(), size, rank) if n in part.cuts else p.detach()
                assert local[n].shape == share.shape, n
                assert local[n].requires_grad == p.requires_grad, n
                if n in part.cuts:
                    places = part.cuts[n].take(torch.arange(p.numel()).view(p.shape), size, rank)
                    again[n].view(-1)[places] = share
        assert all(torch.equal(again[n], made[n]) for n in part.cuts)
    assert net.heads == facts.layers()[4 if name == "gpt-char" else 6].dims["heads"]
    assert net.why_not_tp == ""
    assert (net.sequence_dim, net.context) == (True, facts.sample_shape[0])
