"""What is probed of answering: single operations forward only, as a server uses them, from one request to large batches.

Each probe times one operation over sizes. What operations cost beyond that when they follow each other - Python, dispatch,
code that is no longer in the cache - is told by tiny nets as a whole, whose parts are next to nothing.

# B sequences in a batch, T tokens of a prompt, L cached tokens, H heads, K numbers per head
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, product
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn import functional

from ...workloads import nets
from ...workloads.facts import small_cnn
from ...workloads.gpt import Decoder, Gpt, attend
from ...workloads.gpt_facts import GptFacts
from .measure_probes import ELEMENTS, PIXELS, Once, Probe, Setup

#: Weights that lie between two uses of one layer, so that they come from where a net's weights come from.
WEIGHT_BYTES, MOST_LAYERS = 2**23, 128
WIDTHS = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 64, 256)
CONV_BATCHES = (1, 2, 8, 64)
CONV_INPUTS, CONV_OUTPUTS = (1, 8, 32), (8, 32)
HEAD_WIDTH = 32
#: Attention: so many caches in turn, as a net's blocks have each their own; B * H, and tokens.
BLOCKS = 4
SEQUENCE_HEADS, CACHED, PROMPTS = (6, 48, 192), (16, 64, 256), (4, 32, 128)
#: Tiny nets: blocks of a transformer, whose slope is what one block costs; channels of two convolutions, and pictures.
TINY_BLOCKS, TINY_HEADS, TINY_CHANNELS, TINY_BATCHES = (1, 5), 6, (1, 8, 8), (1, 8)
#: A server that slept finds its caches taken by others: nets are asked without a pause, and after this one.
RESTS_S = (0.0, 1e-3)


def forward_probes() -> Iterator[Probe]:
    """Yield every probe of answering, each on one rank."""
    yield from (*_linear(), *_conv(), *_by_elements(), *_attention(), *_tiny_nets())


def _answering(operation: Callable[[], Any], rest_s: float = 0.0) -> Once:
    """Time an operation where no gradient will be asked for."""

    def once() -> tuple[float, ...]:
        if rest_s:
            time.sleep(rest_s)
        with torch.inference_mode():
            begun = time.perf_counter()
            operation()
            return (time.perf_counter() - begun,)

    return once


def _in_turn(operations: Sequence[Callable[[], Any]], between: Callable[[], Any] = lambda: None) -> Once:
    """Time the mean of operations of one kind, one after another, with what happens between them left out."""

    def once() -> tuple[float, ...]:
        spent_s = 0.0
        with torch.inference_mode():
            for operation in operations:
                between()
                begun = time.perf_counter()
                operation()
                spent_s += time.perf_counter() - begun
        return (spent_s / len(operations),)

    return once


def _linear() -> Iterator[Probe]:
    for width, batch in product(WIDTHS, BATCHES):

        def setup(_: MPI.Intracomm, width: int = width, batch: int = batch) -> Once:
            layers = torch.full((min(WEIGHT_BYTES // (4 * width**2), MOST_LAYERS), width, width), 0.5)
            x, bias = torch.rand(batch, width), torch.zeros(width)
            return _in_turn([partial(functional.linear, x, weights, bias) for weights in layers])

        at = {"width": width, "batch": batch}
        yield Probe("linear_forward", at, setup, how="square layers with weights of their own")


def _conv() -> Iterator[Probe]:
    for inputs, outputs, batch in product(CONV_INPUTS, CONV_OUTPUTS, CONV_BATCHES):

        def setup(_: MPI.Intracomm, inputs: int = inputs, outputs: int = outputs, batch: int = batch) -> Once:
            conv, x = nn.Conv2d(inputs, outputs, 3, padding=1), torch.rand(batch, inputs, PIXELS, PIXELS)
            return _answering(lambda: conv(x))

        at = {"inputs": inputs, "outputs": outputs, "pixels": PIXELS**2, "batch": batch}
        yield Probe("conv_forward", at, setup, how="3 x 3 convolution")


def _by_elements() -> Iterator[Probe]:
    gelu: Callable[[Tensor], Any] = lambda x: functional.gelu(x, approximate="tanh")  # noqa: E731
    operations: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
        "activation_forward": (functional.relu, (-1,)),
        "gelu_forward": (gelu, (-1,)),
        "norm_forward": (nn.LayerNorm(64), (-1, 64)),
        "pool_forward": (nn.MaxPool2d(2), (-1, 1, 8, 8)),
    }
    for name, (operation, shape) in operations.items():
        for elements in ELEMENTS[:-1]:

            def setup(_: MPI.Intracomm, op: Any = operation, shape: Any = shape, elements: int = elements) -> Once:
                x = torch.randn(elements).view(shape)
                return _answering(lambda: op(x))

            yield Probe(name, {"elements": elements}, setup, how="forward only")


def _attention() -> Iterator[Probe]:
    """New tokens that look at a cache: one each at many cached ones, and whole prompts at themselves."""
    for sequences, cached in product(SEQUENCE_HEADS, CACHED):
        at = {"sequence_heads": sequences, "cached": cached}
        yield Probe(
            "decode_attention", at, _attend(sequences, 1, cached), how="one token at its cache, with writing it"
        )
    for sequences, tokens in product(SEQUENCE_HEADS[:-1], PROMPTS):
        at = {"sequence_heads": sequences, "tokens": tokens}
        yield Probe(
            "prefill_attention", at, _attend(sequences, tokens, tokens), how="a prompt at itself, with writing it"
        )


def _attend(sequence_heads: int, tokens: int, longest: int) -> Setup:
    heads = SEQUENCE_HEADS[0]
    batch = sequence_heads // heads

    def setup(_: MPI.Intracomm) -> Once:
        qkv = torch.rand(batch, tokens, 3, heads, HEAD_WIDTH)
        shape = BLOCKS, 2, batch, heads, max(CACHED), HEAD_WIDTH
        caches = torch.from_numpy(np.zeros(shape, np.float32))
        caches[..., :longest, :] = 0.5  # other places are never touched, as in a server
        rows, places = torch.arange(batch)[:, None], torch.arange(longest - tokens, longest).expand(batch, -1)
        seen = (torch.arange(longest) <= places[..., None])[:, None]

        weights, x = cycle(torch.full((BLOCKS, 512, 512), 0.5)), torch.rand(batch, 512)
        blocks = [partial(attend, qkv, cache, rows, places, seen) for cache in caches]
        # Between two attentions a net reads weights, which take the core's own cache.
        return _in_turn(blocks, lambda: functional.linear(x, next(weights)))

    return setup


def _tiny_nets() -> Iterator[Probe]:
    """Whole passes of tiny nets: everything that a server does to answer, but next to no arithmetic."""
    for rest_s in RESTS_S:
        for blocks in TINY_BLOCKS:
            at = {"blocks": blocks, "width": 2 * TINY_HEADS, "heads": TINY_HEADS, "cached": 16, "rest_s": rest_s}
            yield Probe("decode", at, _decode(blocks, rest_s), how="one token of a tiny language model")
        for batch in TINY_BATCHES:
            asked = {"channels": list(TINY_CHANNELS), "pixels": PIXELS**2, "batch": batch, "rest_s": rest_s}
            yield Probe("classify", asked, _classify(batch, rest_s), how="pictures by a tiny net")


def _decode(blocks: int, rest_s: float) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        decoder = Decoder(Gpt(GptFacts("tiny", blocks, 2 * TINY_HEADS, TINY_HEADS, 16, max(CACHED)), seed=0), 1)
        last: list[int] = decoder.prefill(torch.zeros(1, 16, dtype=torch.int64)).argmax(1).tolist()

        def token() -> None:
            decoder.lengths[0] = 15
            last[:] = decoder.decode_step(torch.tensor(last)).argmax(1).tolist()

        return _answering(token, rest_s=rest_s)

    return setup


def _classify(batch: int, rest_s: float) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        net, pictures = (
            nets.build(small_cnn(TINY_CHANNELS, PIXELS), seed=0).eval(),
            torch.rand(64, 1, PIXELS, PIXELS),
        )
        return _answering(lambda: net(pictures[list(range(batch))]).argmax(1).tolist(), rest_s=rest_s)

    return setup
