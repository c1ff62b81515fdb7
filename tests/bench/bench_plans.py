"""Plans per second: ours in one call, and the same question put to mlsysim and Calculon where they are installed.

The job is a GPT-3 of 175e9 parameters on DGX H100 nodes. Ours: the best of several, because a busy neighbour only ever makes
it slower. Peers have no call for many plans, so theirs are asked one by one, the same mix of tp, pp, dp and micro-batch, for
some seconds; a plan that a peer refuses (memory) counts as answered. Calculon is a checkout on PYTHONPATH (the package of
that name on PyPI is another one). One line per figure.

    python tests/bench/bench_plans.py [--seconds=5]
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aiinfra_widgets.models.transformer.memory import memory_per_rank
from aiinfra_widgets.models.transformer.step import predict_step
from aiinfra_widgets.planning.architectures import transformer
from aiinfra_widgets.planning.offers import Limits, owned
from aiinfra_widgets.planning.pareto import nondominated
from aiinfra_widgets.planning.plans import enumerate_plans, plan_blocks
from aiinfra_widgets.planning.search import BLOCK_ROWS, search

MODEL = transformer("gpt-175b", 2048)
BATCH = 1536
OFFER = owned("dgx-h100", (8, 16, 32, 48, 64, 96, 128, 192, 256), 55.0, grid="USA")
RANKS = [8 * n for n in OFFER.node_counts]
DAY_S = 86400.0


def main() -> int:
    """Print one line per figure."""
    seconds = float(next((w.split("=")[1] for w in sys.argv[1:] if w.startswith("--seconds=")), 5))
    ours()
    for name, ask in (("mlsysim", mlsysim), ("Calculon", calculon)):
        try:
            print(f"{name:34s} {rate(ask(), seconds)}", flush=True)
        except ImportError as error:
            print(f"{name:34s} not installed ({error})", flush=True)
    return 0


def ours(repeats: int = 5) -> None:
    """Measure the parts and the whole."""
    count = len(enumerate_plans(MODEL, RANKS, BATCH).dp_size)
    limits = Limits(deadline_s=60 * DAY_S, budget_usd=5e6)
    found = search(MODEL, OFFER, BATCH, tokens=1e11, limits=limits)
    blocks = up_to(list(plan_blocks(MODEL, RANKS, BATCH, rows=BLOCK_ROWS)), 1_000_000)
    million = sum(len(b.dp_size) for b in blocks)
    points = np.random.default_rng(0).lognormal(size=(1_000_000, 3))
    for name, many, work in (
        ("enumerate", count, lambda: list(plan_blocks(MODEL, RANKS, BATCH, rows=BLOCK_ROWS))),
        ("memory_per_rank", million, lambda: [memory_per_rank(MODEL, b).total_bytes for b in blocks]),
        ("predict_step", million, lambda: [predict_step(MODEL, b, OFFER.cluster).step_time_s for b in blocks]),
        (
            "search, limits, front, what binds",
            found.num_layouts,
            lambda: search(MODEL, OFFER, BATCH, tokens=1e11, limits=limits),
        ),
        ("Pareto front of three objectives", len(points), lambda: nondominated(points)),
    ):
        took = min(timed(work) for _ in range(repeats))
        print(f"{name:34s} {many / took:12,.0f} per second ({many:,} in {took:.2f} s, best of {repeats})", flush=True)


def up_to(blocks: list, count: int) -> list:
    """Return so many blocks as make `count` plans at least."""
    totals = itertools.accumulate(len(b.dp_size) for b in blocks)
    return [b for b, total in zip(blocks, totals, strict=True) if total - len(b.dp_size) < count]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(asked: Iterator[bool], seconds: float) -> str:
    """Ask one plan after the other for some seconds; return plans per second, and how many were refused."""
    next(asked)  # the first one loads what is loaded late
    start, answers = time.perf_counter(), []
    while time.perf_counter() - start < seconds:
        answers.append(next(asked))
    took = time.perf_counter() - start
    return (
        f"{len(answers) / took:12,.0f} per second ({len(answers):,} in {took:.2f} s, {answers.count(False):,} refused)"
    )


def layouts(ranks: int = 512) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tp, pp, dp, micro-batch) over and over."""
    every = [
        (tp, pp, ranks // (tp * pp), mb)
        for tp, pp, mb in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2, 4))
        if BATCH % (ranks // (tp * pp) * mb) == 0
    ]
    return itertools.cycle(every)


def mlsysim() -> Iterator[bool]:
    """Ask mlsysim's model of distributed training."""
    import mlsysim as peer
    from mlsysim.solvers import DistributedModel

    model, fleet, solver = peer.Models.Language.GPT3, peer.Systems.Clusters.Training_512_H100, DistributedModel()
    for tp, pp, dp, mb in layouts(fleet.total_accelerators):
        try:
            solver.solve(
                model, fleet, batch_size=BATCH, tp_size=tp, pp_size=pp, microbatch_count=BATCH // (dp * mb), zero_stage=1,
                activation_recomputation=True,
            )  # fmt: skip
        except ValueError:
            yield False
        else:
            yield True


def calculon() -> Iterator[bool]:
    """Ask Calculon, with its own description of the model and of an H100 system."""
    from calculon.llm import Llm, System  # another package of the name has no calculon.llm

    folder = Path(sys.modules["calculon"].__file__ or "").parents[1]
    read = lambda name: json.loads((folder / name).read_text())  # noqa: E731
    app, system = Llm.Application(read("models/gpt3-175B.json")), System(read("systems/h100_80g_nvl8.json"))
    plan = read("examples/3072_t4_p64_d12_mbs4_full.json")
    for tp, pp, dp, mb in layouts():
        degrees = {"tensor_par": tp, "pipeline_par": pp, "data_par": dp, "microbatch_size": mb}
        asked = Llm.Execution.from_json({**plan, **degrees, "num_procs": 512, "batch_size": BATCH})
        model = Llm(app, logging.getLogger("calculon"))
        try:
            model.compile(system, asked)
            model.run(system)
        except Llm.Error:
            yield False
        else:
            yield True


if __name__ == "__main__":
    sys.exit(main())
