"""What is probed on one rank: the layers of nets by kind and size, and what a step has around them.

# B samples, N rows, V classes, H heads, T tokens, K numbers of a head
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from typing import Any

import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from ...ranks.buffers import FlatBuffers
from .measure_probes import BOTH_WAYS, ELEMENTS, PIXELS, Once, Probe, Setup, after_work, both_ways, timed

BATCHES = (16, 64, 256, 1024)
WIDTHS = (1, 8, 64, 256, 1024)
#: Layers that are not square, against the square one of as much arithmetic: sqrt(in * out), out / in, rows.
SHAPED_WIDTHS, ASPECTS, SHAPED_ROWS = (32, 128, 512), (1 / 256, 1 / 16, 16, 256), (64, 512)
CONV_INPUTS, CONV_OUTPUTS = (1, 8, 32), (8, 32)
WIDE_CHANNELS, WIDE_BATCHES = (32, 128), (4, 32)
NORM_WIDTHS = (64, 512)
#: Attention over so many tokens of all heads and samples together, in sequences so long, with heads so wide.
ATTENTION_TOKENS, SEQUENCES, HEAD_WIDTHS = (1024, 4096), (16, 64, 256, 1024), (16, 64)
LOOKUPS, TABLE_WIDTHS, TABLES = (64, 512, 4096), (16, 256), (2**12, 2**17, 2**21)
VECTORS, VECTOR_WIDTHS, VECTOR_BATCHES = (4, 16), (8, 64), (16, 64, 256)
CLASSES, LOSS_ROWS = (2, 10, 64, 1024, 4096), (16, 128, 1024)
#: More than the C library ever keeps for the next tensor, so that every page of it is new.
FRESH_BYTES = 2**26


def layer_probes() -> Iterator[Probe]:
    """Yield every probe of one rank by itself, answering excepted."""
    yield from (*_matmul(), *_linear(), *_conv(), *_by_elements(), *_norm(), *_attention(), *_embedding())
    yield from (*_interaction(), *_losses(), *_fresh(), *_chain(), *_whole_step(), *_gather())


def _matmul() -> Iterator[Probe]:
    for n in (32, 128, 512):

        def setup(_: MPI.Intracomm, n: int = n) -> Once:
            a, b = torch.rand(n, n), torch.rand(n, n)
            out = torch.empty(n, n)
            return timed(lambda: torch.mm(a, b, out=out))

        how = "square matrices, float32, one thread"
        yield Probe("matmul", {"n": n}, setup, unit="flop/s", work=2.0 * n**3, how=how)


def _layer(name: str, at: dict[str, Any], setup: Setup, how: str) -> Probe:
    return Probe(name, at, setup, how=how, parts=BOTH_WAYS)


def _linear() -> Iterator[Probe]:
    for width, batch in product(WIDTHS, BATCHES):
        yield _layer("linear", {"width": width, "batch": batch}, _dense(width, width, batch), "square layer")
    for width, aspect, rows in product(SHAPED_WIDTHS, ASPECTS, SHAPED_ROWS):
        inputs, outputs = (round(width * aspect**power) for power in (-0.5, 0.5))
        at = {"width": width, "aspect": aspect, "batch": rows}
        yield _layer("linear_shape", at, _dense(inputs, outputs, rows), f"layer {inputs} x {outputs}")


def _dense(inputs: int, outputs: int, rows: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        return both_ways(nn.Linear(inputs, outputs), torch.rand(rows, inputs, requires_grad=True))

    return setup


def _conv() -> Iterator[Probe]:
    few = (("conv", *at) for at in product(CONV_INPUTS, CONV_OUTPUTS, BATCHES))
    many = (("conv_wide", *at) for at in product(WIDE_CHANNELS, WIDE_CHANNELS, WIDE_BATCHES))
    for name, inputs, outputs, batch in (*few, *many):

        def setup(_: MPI.Intracomm, inputs: int = inputs, outputs: int = outputs, batch: int = batch) -> Once:
            # A net's first convolution sees an image of few channels and owes nobody a gradient.
            x = torch.rand(batch, inputs, PIXELS, PIXELS, requires_grad=inputs > 1)
            return both_ways(nn.Conv2d(inputs, outputs, 3, padding=1), x)

        at = {"inputs": inputs, "outputs": outputs, "pixels": PIXELS**2, "batch": batch}
        yield _layer(name, at, setup, "3 x 3 convolution")


def _by_elements() -> Iterator[Probe]:
    operations: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], str]] = {
        "activation": (F.relu, (-1,), "rectifier"),
        "pool": (nn.MaxPool2d(2), (-1, 1, 8, 8), "2 x 2 maximum"),
        "gelu": (lambda x: F.gelu(x, approximate="tanh"), (-1,), "GELU by the hyperbolic tangent"),
        "add": (lambda x: x + x, (-1,), "sum of two branches, and of their gradients"),
        "elementwise": (lambda x: x * x, (-1,), "squares"),
    }
    for name, (operation, shape, how) in operations.items():
        for elements in ELEMENTS[1:] if name == "pool" else ELEMENTS:

            def setup(_: MPI.Intracomm, op: Any = operation, shape: Any = shape, elements: int = elements) -> Once:
                return both_ways(op, torch.randn(elements).view(shape).requires_grad_())

            yield _layer(name, {"elements": elements}, setup, how)


def _norm() -> Iterator[Probe]:
    for width, elements in product(NORM_WIDTHS, ELEMENTS[1:]):

        def setup(_: MPI.Intracomm, width: int = width, elements: int = elements) -> Once:
            return both_ways(nn.LayerNorm(width), torch.randn(elements // width, width, requires_grad=True))

        yield _layer("norm", {"width": width, "elements": elements}, setup, "layer norm over rows of this width")


def _attention() -> Iterator[Probe]:
    for total, tokens, head in product(ATTENTION_TOKENS, SEQUENCES, HEAD_WIDTHS):

        def setup(_: MPI.Intracomm, heads: int = total // tokens, tokens: int = tokens, head: int = head) -> Once:
            def attend(qkv_1TD: Tensor) -> Tensor:  # noqa: N803
                q, k, v = qkv_1TD.view(1, tokens, 3, heads, head).transpose(1, 3).unbind(2)
                found: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
                return found

            return both_ways(attend, torch.randn(1, tokens, 3 * heads * head, requires_grad=True))

        at = {"head_tokens": total, "tokens": tokens, "head": head}
        yield _layer("attention", at, setup, "causal, from queries, keys and values side by side")


def _embedding() -> Iterator[Probe]:
    for rows, width, table in product(LOOKUPS, TABLE_WIDTHS, TABLES):

        def setup(_: MPI.Intracomm, rows: int = rows, width: int = width, table: int = table) -> Once:
            module = nn.Embedding(table // width, width)
            module.weight.grad = torch.zeros_like(module.weight)  # it is there before the first step, as in the trainer
            index, seed = torch.randint(0, table // width, (rows,)), torch.ones(rows, width)

            def once() -> tuple[float, ...]:
                begun = time.perf_counter()
                y = module(index)
                between = time.perf_counter()
                y.backward(seed)
                del y
                return between - begun, time.perf_counter() - between

            return once

        yield _layer("embedding", {"rows": rows, "width": width, "params": table}, setup, "rows of a table by index")


def _interaction() -> Iterator[Probe]:
    for vectors, width, batch in product(VECTORS, VECTOR_WIDTHS, VECTOR_BATCHES):

        def setup(_: MPI.Intracomm, vectors: int = vectors, width: int = width, batch: int = batch) -> Once:
            first, second = torch.tril_indices(vectors, vectors, -1)

            def dots(x_BVK: Tensor) -> Tensor:  # noqa: N803
                return torch.bmm(x_BVK, x_BVK.transpose(1, 2))[:, first, second]

            return both_ways(dots, torch.rand(batch, vectors, width, requires_grad=True))

        yield _layer("interaction", {"vectors": vectors, "width": width, "batch": batch}, setup, "all dot products")


def _losses() -> Iterator[Probe]:
    for classes, rows in product(CLASSES, LOSS_ROWS):

        def setup(_: MPI.Intracomm, classes: int = classes, rows: int = rows) -> Once:
            y = torch.randint(0, classes, (rows,))
            entropy: Callable[[Tensor], Tensor] = lambda x: F.cross_entropy(x, y, reduction="sum") / rows  # noqa: E731
            return both_ways(entropy, torch.randn(rows, classes, requires_grad=True))

        yield _layer("cross_entropy", {"classes": classes, "rows": rows}, setup, "of so many classes")
    for rows in BATCHES:

        def setup_error(_: MPI.Intracomm, rows: int = rows) -> Once:
            y = torch.randn(rows, 1)
            return both_ways(
                lambda x: F.mse_loss(x, y, reduction="sum") / rows, torch.randn(rows, 1, requires_grad=True)
            )

        def setup_logistic(_: MPI.Intracomm, rows: int = rows) -> Once:
            y, x = torch.rand(rows, 1).round(), torch.randn(rows, 1, requires_grad=True)
            return both_ways(lambda x: F.binary_cross_entropy_with_logits(x, y, reduction="sum") / rows, x)

        yield _layer("squared_error", {"batch": rows}, setup_error, "of one number")
        yield _layer("logistic", {"batch": rows}, setup_logistic, "of one number")


def _fresh() -> Iterator[Probe]:
    """Memory that was given back to the system after its last use: the system clears every page of it anew."""

    def setup(_: MPI.Intracomm) -> Once:
        x = torch.zeros(FRESH_BYTES // 4)
        out = torch.empty_like(x)

        def once() -> tuple[float, ...]:
            begun = time.perf_counter()
            torch.neg(x, out=out)
            between = time.perf_counter()
            fresh = torch.neg(x)
            end = time.perf_counter()
            del fresh
            return (max(end - between - (between - begun), 1e-9),)

        return once

    yield Probe("fresh", {"bytes": FRESH_BYTES}, setup, how="writing a new tensor, beyond writing an old one")


def _chain() -> Iterator[Probe]:
    """Calls into backward cost once per step, layers once each: one layer and nine layers tell them apart."""
    for layers in (1, 9):

        def setup(_: MPI.Intracomm, layers: int = layers) -> Once:
            net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
            return both_ways(net, torch.rand(16, 8))

        yield _layer("chain", {"layers": layers}, setup, "tiny layers in a row")


def _whole_step() -> Iterator[Probe]:
    """Operations one after another are slower than each in a loop of its own: a whole step of a tiny net tells by how much."""
    widths, batch = (16, 16, 16, 10), 64

    def setup(_: MPI.Intracomm) -> Once:
        linears = [nn.Linear(a, b) for a, b in pairwise(widths)]
        net = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
        flat = FlatBuffers(list(net.parameters()), tail=4, device=torch.device("cpu"))
        x, y = torch.rand(batch, widths[0]), torch.randint(0, 10, (batch,))

        def step() -> None:
            flat.gradients.zero_()
            loss = F.cross_entropy(net(x), y, reduction="sum") / batch
            loss.backward()
            flat.put_tail(0, 1, float(loss.detach()), 0, time.monotonic())
            flat.momentum.mul_(0.9).add_(flat.gradients)
            flat.parameters.add_(flat.momentum, alpha=-0.01)

        return timed(step)

    at = {"widths": list(widths), "batch": batch}
    yield Probe("step", at, setup, how="a tiny perceptron, everything but the data")


def _gather() -> Iterator[Probe]:
    for row, batch in product((1, 64, 1024), BATCHES):

        def setup(_: MPI.Intracomm, row: int = row, batch: int = batch) -> Once:
            count = 65536 if row < 1024 else 8192
            x, y, order = torch.ones(count, row), torch.ones(count, 1), torch.randperm(count)
            at = [0]

            def fetch() -> None:
                at[0] = (at[0] + batch) % (count - batch)  # other rows each time, as in training
                index = order[at[0] : at[0] + batch][slice(0, batch)]
                x[index], y[index]

            return after_work(fetch)

        yield Probe("gather", {"row": row, "batch": batch}, setup, how="rows of a data set by random index")
