"""A machine whose probes follow simple laws, so that what is predicted of it is known by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

from aiinfra_widgets.machine.profile import Machine, Probe

OVERHEAD_S, FLOPS, LATENCY_S, BYTES_PER_S = 1e-5, 1e10, 5e-6, 1e9
#: Read and written in memory together.
MEMORY_BYTES_PER_S = 2e10
BATCHES = (16, 256, 1024)
#: Kinds of larger nets: a nanosecond for each number that a probe names, after OVERHEAD_S.
OTHERS: dict[str, dict[str, tuple[int, ...]]] = {
    "conv_wide": {"inputs": (32, 128), "outputs": (32, 128), "batch": BATCHES},
    "attention": {"head_tokens": (64, 2**14), "tokens": (16, 1024), "head": (16, 64)},
    "embedding": {"rows": (16, 2**14), "width": (8, 256), "params": (2**10, 2**24)},
    "norm": {"width": (32, 1024), "elements": (64, 2**21)},
    "interaction": {"vectors": (4, 16), "width": (8, 64), "batch": BATCHES},
    "logistic": {"batch": BATCHES},
}


def probe(name: str, seconds: float, unit: str = "s", **at: Any) -> Probe:
    return Probe(name, at, unit, seconds, seconds * 0.9, seconds * 1.1, 9)


def both_ways(name: str, seconds: float, **at: Any) -> list[Probe]:
    """A third of the time forward, the rest backward."""
    return [probe(name, seconds * share, part=way, **at) for way, share in (("forward", 1 / 3), ("backward", 2 / 3))]


def machine(cores: int = 2, others: float = 0.0) -> Machine:
    """Arithmetic at FLOPS after OVERHEAD_S; messages after LATENCY_S at BYTES_PER_S; n ranks take turns on the cores."""
    probes = [
        *both_ways("chain", 2e-5, layers=1),
        *both_ways("chain", 1e-4, layers=9),
        probe("step", 2e-4, widths=[16, 16, 10], batch=64),
        probe("runtime", 2e-5),
        probe("others", others),
    ]
    for width, b in itertools.product((1, 64, 1024), BATCHES):
        probes += both_ways("linear", OVERHEAD_S + 6 * width**2 * b / FLOPS, width=width, batch=b)
        if b < 1024:
            for aspect in (1 / 256, 256):  # shape makes no difference here
                at = {"width": width, "aspect": aspect, "batch": b}
                probes += both_ways("linear_shape", OVERHEAD_S + 6 * width**2 * b / FLOPS, **at)
        probes.append(probe("gather", 1e-5 + 4 * width * b / 1e10, row=width, batch=b))
    for inputs, outputs, b in itertools.product((1, 32), (8, 32), BATCHES):
        at = {"inputs": inputs, "outputs": outputs, "pixels": 64, "batch": b}
        probes += both_ways("conv", OVERHEAD_S + 6 * 9 * 64 * inputs * outputs * b / FLOPS, **at)
    for elements in (64, 2**21):
        for kind in ("activation", "pool", "gelu", "add", "elementwise"):
            probes += both_ways(kind, OVERHEAD_S + elements * 1e-9, elements=elements)
    for b in BATCHES:
        probes += both_ways("squared_error", 3e-5, batch=b)
        probes += [p for classes in (2, 10) for p in both_ways("cross_entropy", 3e-5, classes=classes, rows=b)]
    for name, points in OTHERS.items():
        for sizes in itertools.product(*points.values()):
            many = math.prod(sizes) if name != "embedding" else sizes[0] * sizes[1]
            seconds = OVERHEAD_S + many * (9 * 64 * 6 / FLOPS if name == "conv_wide" else 1e-9)
            more = {"pixels": 64} if name == "conv_wide" else {}
            probes += both_ways(name, seconds, **dict(zip(points, sizes, strict=True)), **more)
    probes.append(probe("fresh", 1e-2, bytes=2**26))
    for n in (1, 2, 4):
        turns = max(1, n / cores)
        probes += [probe("update", 1e-5 + 1e-9 * p, params=p, ranks=n, optimizer="sgd") for p in (2**8, 2**24)]
        probes += [probe("update", 3e-5 + 3e-9 * p, params=p, ranks=n, optimizer="adamw") for p in (2**8, 2**24)]
        probes.append(probe("shared_cores", 0.01 * turns, ranks=n))
        probes.append(probe("tail", 5e-6, ranks=n))
        probes.append(probe("memory", MEMORY_BYTES_PER_S, unit="B/s", ranks=n))
        for alone_s, size in itertools.product((3e-4, 1e-2), (2**9, 2**22)):
            at = {"ranks": n, "alone_s": alone_s, "bytes": size}
            comm = 0.0 if n == 1 else (LATENCY_S + size / BYTES_PER_S) * turns
            for part, seconds in (("compute", alone_s * turns), ("wait", 0.02 * alone_s * (n - 1)), ("comm", comm)):
                probes.append(probe("lockstep", seconds, part=part, **at))
        if n > 1:
            probes += [probe("relay", alone_s, ranks=n, alone_s=alone_s) for alone_s in (3e-4, 1e-2)]
            probes += [
                probe("allreduce", LATENCY_S + s / BYTES_PER_S, ranks=n, bytes=s) for s in (8, 2**12, 2**20, 2**26)
            ]
            for name, size in itertools.product(
                ("reduce_scatter", "all_gather", "all_to_all", "send"), (64, 2**12, 2**20, 2**25)
            ):
                probes.append(probe(name, LATENCY_S / 2 + size / BYTES_PER_S / 2, ranks=n, bytes=size))
    return Machine("made-up", "now", cores, 2**34, probes=tuple(probes))
