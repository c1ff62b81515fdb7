"""Language models on one GPU in bf16: step time, MFU, tokens/s and J/token of the lab, and its ratio to a plain torch loop.

Needs a CUDA device, and says so where there is none. `--record FILE` writes the figures as CSV with date and device.

    python tests/bench/bench_gpu.py [--workload gpt-124m --batch 16] [--record data/measured_gpu.csv]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from aiinfra_widgets.errors import LabError
from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.machine.catalog import accelerator
from aiinfra_widgets.runs.home import cache_folder
from aiinfra_widgets.workloads import catalog, nets

SIZES = (("gpt-124m", 16), ("gpt-1.3b", 4))
STEPS, SETTLE = 60, 15


def main() -> int:
    """Measure each size and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: not measured")
        return 0
    rows = [row for work in ([(given.workload, given.batch)] if given.workload else SIZES) for row in measure(*work)]
    for row in rows:
        print("{workload:10s} {quantity:18s} {value:12.5g} {unit:9s} ({method})".format(**row), flush=True)
    if given.record:
        with given.record.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            if not file.tell():
                writer.writeheader()
            writer.writerows(rows)
    return 0


def measure(workload: str, batch: int) -> list[dict[str, Any]]:
    """Return the figures of one net."""
    lab_s, joule = lab(workload, batch)
    loop_s = plain_loop(workload, batch)
    facts, device = catalog.facts(workload), torch.cuda.get_device_name(0)
    tokens, flop = batch * facts.sample_shape[0], facts.flop_per_sample * batch
    found = {
        "step_time_s": (lab_s, "s"), "plain_loop_step_time_s": (loop_s, "s"), "ratio_to_plain_loop": (loop_s / lab_s, "1"),
        "tokens_per_s": (tokens / lab_s, "tokens/s"), "achieved_flops": (flop / lab_s, "flop/s"),
    }  # fmt: skip
    if joule is not None:
        found["energy_per_token_j"] = (joule / tokens, "J")
    try:
        peak = accelerator(device)["peak_bf16_dense"].value
        found["mfu_frac"] = (flop / lab_s / peak, "1")
    except (LabError, KeyError) as error:
        print(f"MFU not known: {error}")
    stamp = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": device,
        "torch": torch.__version__,
        "workload": workload,
    }
    how = f"bf16, compiled, batch {batch}, median of {STEPS - SETTLE} steps"
    return [{**stamp, "quantity": q, "value": v, "unit": u, "method": how} for q, (v, u) in found.items()]


def lab(workload: str, batch: int) -> tuple[float, float | None]:
    """Return the lab's median step time, and joule per step by a counter where there is one."""
    session = Session(grace_s=0.0)
    asked = {
        "workload": workload,
        "global_batch": batch,
        "steps": STEPS,
        "device": "cuda",
        "precision": "bf16",
        "compile": True,
    }
    quiet = {"evaluate_every": 0, "checkpoint_every_s": 0.0, "trace_every": 0}
    try:
        reader = session.launch("training", spec_of("training", {**asked, **quiet}), room=1)
        *_, now = watch(reader, every_s=0.5)
        if not now.ok:
            raise SystemExit(f"{workload}: {now.state}: {now.message}")
        rows = reader.nodes[reader.nodes["tick"] > SETTLE]
        step_s = float(rows["step_time_s"].median())
        segment = reader.segments()[0]
        energy = segment.values.get("energy_j")
        return step_s, energy.value / segment.ticks if energy is not None else None
    finally:
        session.close()


def plain_loop(workload: str, batch: int) -> float:
    """Return the median step time of the same net in a loop of torch alone."""
    work = nets.load(workload, seed=0, cache=cache_folder())
    module: Any = torch.compile(work.module.cuda())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    x, y = (t[:batch].cuda() for t in work.train)
    times = []
    for _ in range(STEPS):
        torch.cuda.synchronize()
        begun_s = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = work.loss_sum(module(x), y) / batch
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun_s)
    return statistics.median(times[SETTLE:])


if __name__ == "__main__":
    sys.exit(main())
