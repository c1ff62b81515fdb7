"""The language models: decoders that ranks may share by layers, tokens and blocks, and adapters on a fixed base.

Written once, against `Axes`. Of a block, each tp rank holds some heads and some columns of the wide layer; what enters a cut
layer goes through `axes.enter`, what leaves one through `axes.leave`, once each for attention and for the perceptron. Under
sequence parallel (B, s, D) lies between them, under context parallel t of T tokens are here at all.

# B sequences, T tokens of each, t those of this cp rank, s those of this tp rank, D width, h heads here, K = D / heads, r rank
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from ..errors import DataError
from .axes import Axes
from .cut_layers import Product, draw, he_std
from .facts import WorkloadFacts
from .parts import Cut, Net, Part

#: Standard deviation of the embeddings of tokens and places. Ten times the usual: without a warm-up, the first steps of Adam move
#: all of them alike, and at 0.02 the tokens were one for hundreds of steps (loss 3.3 instead of 2.5 nats after 100 steps).
EMBEDDING_STD = 0.2
#: Of the head (Radford et al. 2019).
HEAD_STD = 0.02
#: What the adapters add is multiplied by this (alpha / r of Hu et al. 2021).
ADAPTER_SCALE = 2.0


class Adapted(Product):
    """A product of which this tp rank holds a share; with adapters if rank > 0."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def __init__(self, axes: Axes, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs)
        self.axes, self.rank = axes, rank
        if rank:
            self.lora_a = nn.Parameter(torch.empty(rank, inputs))
            self.lora_b = nn.Parameter(torch.empty(outputs, rank))


class Columns(Adapted):
    """Of a product's outputs, those of this tp rank."""

    def forward(self, x_BsD: Tensor) -> Tensor:  # noqa: N803
        """Return (B, t, outputs here).

        The adapter's narrow side enters too, instead of being computed from what has entered: so its gradient, and the one that
        it hands to x, are summed over the ranks exactly once.
        """
        y = self.times(self.axes.enter(x_BsD), self.bias)
        if not self.rank:
            return y
        narrow = self.axes.enter(F.linear(x_BsD, self.lora_a))
        return y + ADAPTER_SCALE * F.linear(narrow, self.lora_b)


class Rows(Adapted):
    """Of a product's inputs, those of this tp rank."""

    def forward(self, x_Bti: Tensor) -> Tensor:  # noqa: N803
        """Return (B, s, D), the bias added once, behind the sum over the ranks."""
        alone = self.axes.tp_size == 1
        y = self.times(x_Bti, self.bias) if alone else self.axes.leave(self.times(x_Bti, None)) + self.bias
        if not self.rank:
            return y
        narrow = self.axes.leave(F.linear(x_Bti, self.lora_a))
        return y + ADAPTER_SCALE * F.linear(narrow, self.lora_b)


class Table(nn.Module):
    """A row of D numbers per token or place, allocated only."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))


class Embed(nn.Module):
    """Tokens and places to vectors.

    `axes.embed` sums over the tp ranks that share the table, and every rank adds the places to all of its t tokens; under
    sequence parallel `axes.scatter_tokens` then leaves it s of them. Its backward gathers, so no gradient here is partial.
    """

    def __init__(self, vocab: int, width: int, context: int, axes: Axes) -> None:
        super().__init__()
        self.vocab, self.axes = vocab, axes
        mine = axes.mine(vocab)
        self.tokens = Table(mine.stop - mine.start, width)
        self.places = Table(context, width)

    def forward(self, tokens_Bt: Tensor) -> Tensor:  # noqa: N803
        """Return (B, s, D) of int64 tokens."""
        t = tokens_Bt.shape[1]
        positions = self.axes.positions(t)
        places_tD = self.places.weight[slice(t) if positions is None else positions]  # noqa: N806
        x_BtD = self.axes.embed(tokens_Bt, self.tokens.weight, self.vocab) + places_tD  # noqa: N806
        return self.axes.scatter_tokens(x_BtD)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int, rank: int, axes: Axes) -> None:
        super().__init__()
        self.axes, self.head_size = axes, width // heads
        mine, wide = axes.mine(heads), axes.mine(4 * width)
        here, columns = (mine.stop - mine.start) * self.head_size, wide.stop - wide.start
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Columns(axes, width, 3 * here, rank), Rows(axes, here, width, rank)
        self.up, self.down = Columns(axes, width, columns, rank), Rows(axes, columns, width, rank)

    def forward(self, x_BsD: Tensor) -> Tensor:  # noqa: N803
        """Return (B, s, D)."""
        x_BsD = x_BsD + self.out(self._attend(self.qkv(self.norm1(x_BsD))))  # noqa: N806
        more: Tensor = self.down(F.gelu(self.up(self.norm2(x_BsD)), approximate="tanh"))
        return x_BsD + more

    def _attend(self, qkv_Bti: Tensor) -> Tensor:  # noqa: N803
        """Return what the queries of (B, t, 3 h K) find in the tokens up to their own, (B, t, h K)."""
        t = qkv_Bti.shape[1]
        q, k, v = qkv_Bti.unflatten(2, (3, -1, self.head_size)).unbind(2)
        positions = self.axes.positions(t)
        seen = None
        if self.axes.cp_size > 1:  # keys and values in one message
            both = self.axes.whole_sequence(torch.cat([k, v], 2))
            k, v = both.chunk(2, 2)
        if positions is not None:
            seen = torch.arange(k.shape[1], device=k.device) <= positions.to(k.device)[:, None]
        found = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), seen, is_causal=seen is None
        )
        return found.transpose(1, 2).flatten(2)


class Head(nn.Module):
    """The last norm and the product with the vocabulary, of which each tp rank has some columns; the loss sums over them."""

    def __init__(self, vocab: int, width: int, axes: Axes) -> None:
        super().__init__()
        self.axes = axes
        mine = axes.mine(vocab)
        self.norm = nn.LayerNorm(width)
        self.logits = Table(mine.stop - mine.start, width)

    def forward(self, x_BsD: Tensor) -> Tensor:  # noqa: N803
        """Return logits (B, t, V here)."""
        return F.linear(self.axes.enter(self.norm(x_BsD)), self.logits.weight)


def net(facts: WorkloadFacts) -> Net:
    """Return the parts of a decoder: `embed`, `block0` ..., `head`; with adapters everything else is fixed."""
    layers = {layer.name: layer for layer in facts.layers()}
    vocab, context = layers["embed.tokens"].dims["vocab"], layers["embed.places"].dims["vocab"]
    width, heads = layers["embed.tokens"].dims["width"], layers["block0.attention"].dims["heads"]
    adapter = layers.get("block0.qkv.lora_a")
    rank = adapter.dims["out"] if adapter else 0
    cost: dict[str, float] = {}
    for name, layer in layers.items():
        if layer.kind != "loss":
            within = name.split(".")[0]
            cost[within] = cost.get(within, 0.0) + layer.flop_forward_per_sample
    cuts, whole = _of_a_block(width // heads, rank)
    parts = []
    for name, flop in cost.items():
        build: Callable[[Axes], nn.Module]
        if name == "embed":
            build = partial(Embed, vocab, width, context)
            part = Part(name, build, {"tokens.weight": Cut(0)}, cost=flop)
        elif name == "head":
            build, norm = partial(Head, vocab, width), frozenset({"norm.weight", "norm.bias"})
            part = Part(name, build, {"logits.weight": Cut(0)}, norm, flop)
        else:
            part = Part(name, partial(Block, width, heads, rank), cuts, whole, flop)
        parts.append(replace(part, build=partial(_fixed, part.build)) if rank else part)
    return Net(tuple(parts), _draw, heads=heads, sequence_dim=True, context=context)


def _of_a_block(unit: int, rank: int) -> tuple[dict[str, Cut], frozenset[str]]:
    """Return the cuts of a block's parameters, and those that are whole and see this tp rank's tokens only.

    Args:
        unit: Numbers of one head, K.
        rank: r, 0 without adapters.
    """
    by_columns = {"qkv": Cut(0, blocks=3, unit=unit), "up": Cut(0)}
    by_rows = {"out": Cut(1, unit=unit), "down": Cut(1)}
    cuts = {f"{name}.weight": cut for name, cut in (by_columns | by_rows).items()}
    cuts |= {f"{name}.bias": cut for name, cut in by_columns.items()}
    whole = {f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    whole |= {f"{name}.bias" for name in by_rows}
    if rank:
        cuts |= {f"{name}.lora_b": cut for name, cut in by_columns.items()}
        cuts |= {f"{name}.lora_a": cut for name, cut in by_rows.items()}
        whole |= {f"{name}.lora_a" for name in by_columns} | {f"{name}.lora_b" for name in by_rows}
    return cuts, frozenset(whole)


def _fixed(build: Callable[[Axes], nn.Module], axes: Axes) -> nn.Module:
    """Return a part of which only the adapters are trained."""
    module = build(axes)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_is_adapter(name))
    return module


def _is_adapter(name: str) -> bool:
    return name.endswith((".lora_a", ".lora_b"))


def _draw(module: nn.Module, seed: int) -> None:
    """Initialise the whole net from `seed` alone; a base is drawn as it is without adapters, which add nothing at first.

    A product returns a quarter of the variance that it reads, for nothing warms up the learning rate; those that add to x share
    that between all blocks (Radford et al. 2019). Biases are 0, norms the identity.
    """
    blocks = sum(isinstance(part, Block) for part in module.children())

    def std_of(name: str, parameter: nn.Parameter) -> float:
        if parameter.ndim == 1 or _is_adapter(name):
            return 0.0
        if not name.startswith("block"):
            return EMBEDDING_STD if name.startswith("embed") else HEAD_STD
        std = he_std(parameter, 0.25)
        return std / (2 * blocks) ** 0.5 if name.endswith(("out.weight", "down.weight")) else std

    draw(module, seed, std_of)
    rng = np.random.default_rng([seed, 1])
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name and name.endswith(".weight"):
                parameter.fill_(1.0)
            elif name.endswith(".lora_a"):
                drawn = rng.random(tuple(parameter.shape), dtype=np.float32) - np.float32(0.5)
                parameter.copy_(torch.from_numpy(drawn * np.float32(12**0.5 * he_std(parameter, 1.0))))


@torch.no_grad()
def load_base(module: nn.Module, arrays: Mapping[str, NDArray[np.floating[Any]]]) -> None:
    """Put trained parameters under the adapters, in place.

    Args:
        module: A whole net with adapters, or a stage of one, on any device; its adapters stay as they are.
        arrays: By the name of the parameter in the net (`block0.qkv.weight`), as in a checkpoint of the base's run; others
            are ignored.

    Raises:
        DataError: One is missing, or has another shape: the base is of another size.
    """
    base = {name: p for name, p in module.named_parameters() if not _is_adapter(name)}
    for name, parameter in base.items():
        found = arrays[name].shape if name in arrays else "nothing"
        if found != tuple(parameter.shape):
            raise DataError(
                f"the base has {found} for {name}, expected {tuple(parameter.shape)}; "
                "use a checkpoint of the workload under the adapters, at its own size"
            )
    for name, parameter in base.items():
        parameter.copy_(torch.from_numpy(np.array(arrays[name])))
