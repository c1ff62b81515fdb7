"""The live view under load: a real lab in JupyterLab and Chromium, its figures at 10 Hz, while four ranks train on the same cores.

For each look of the kernel at the run: the time from sending it to the page to the frame in which the page has drawn it (the
second animation frame after the data arrived), and the age of its newest tick when it is sent. Then the memory of the
kernel and of the page, with the slope of each and its 95 % interval: the medians of ten stretches, the first fifth left out.
Asked for: p95 under 250 ms, and slopes of about nothing. The ranks give way to the page where `--nice` says so; it stands in
the run's note. One line per figure; a busy neighbour disturbs all of them, so what other programs took is told, too.

    python tests/bench/bench_live.py --seconds 600 --nice 10

Needs Chromium (in CHROMIUM, or on the PATH) and a calibrated machine (`aiinfra calibrate`), whose profile is copied.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.special import stdtrit

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "browser"))

from lab_driver import JupyterLab, Page, chromium, left_running  # noqa: E402

from aiinfra_widgets.runs.home import machines_folder  # noqa: E402
from aiinfra_widgets.runs.reader import RunReader  # noqa: E402

#: What the notebook does. Each message to the page is noted with the newest tick that it carries; so the page can be asked when
#: it drew that tick. Wall clocks of kernel and page are the same clock.
CELL = """
import json, os, time
from aiinfra_widgets import Lab
from aiinfra_widgets.widgets.live import Live

sent = open(os.environ["BENCH_SENT"], "a", buffering=1)
put, send, newest = Live.put, Live.send, {{}}

def noting_put(self, chart, source, columns, **more):
    if chart == "parts" and source == "predicted" and len(columns["right"]):
        newest[id(self)] = float(columns["right"][-1])
    put(self, chart, source, columns, **more)

def noting_send(self, content, buffers=None):
    tick = newest.pop(id(self), None)
    if tick is not None:
        print(json.dumps([time.time(), time.monotonic(), tick]), file=sent)
    send(self, content, buffers=buffers)

Live.put, Live.send = noting_put, noting_send
lab = Lab("training", nodes={nodes}, workload="digits-cnn", steps=10_000_000)
lab.commit(0.02)
lab.run(note="ranks at nice {nice}")
lab
"""
#: Notes, for each newest tick, the time of the second frame after it came.
WATCH = """() => { window.__seen = []; let last = null, waiting = [];
    const models = window.Bokeh.documents.flatMap(d => [...d._all_models.values()]);
    const found = models.filter(m => m.type === 'ColumnDataSource' && m.name === 'predicted');
    const look = () => {
        const now = (performance.timeOrigin + performance.now()) / 1000;
        for (const [tick, frames] of waiting) if (frames === 1) window.__seen.push([now, tick]);
        waiting = waiting.filter(w => w[1] < 1).map(([t, f]) => [t, f + 1]);
        const ends = found.map(m => m.data.right.length ? m.data.right[m.data.right.length - 1] : 0);
        const tick = ends.length ? Math.max(...ends) : 0;
        if (tick && tick !== last) { last = tick; waiting.push([tick, 0]); }
        requestAnimationFrame(look); };
    requestAnimationFrame(look); }"""
FIGURES = "() => document.querySelectorAll('.aiinfra-chart:not(.aiinfra-chart-blank)').length"


def main() -> int:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--nice", type=int, default=10, help="of the ranks; 0 leaves them as they are")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bl-"))
    try:
        (home / "labs").mkdir(parents=True)
        shutil.copytree(machines_folder(), home / "lab" / "machines")
        write_notebook(home / "labs" / "live.ipynb", args)
        os.environ["BENCH_SENT"] = str(home / "sent.jsonl")
        path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        if path is None:
            raise SystemExit("no Chromium: set CHROMIUM to its path")
        with JupyterLab(home / "labs", home) as server, chromium(path, server) as page:
            found = measure(server, page, home, args)
        report(found, args)
    finally:
        for process in left_running(home / "lab"):
            process.kill()
        shutil.rmtree(home, ignore_errors=True)
    return 0


def write_notebook(path: Path, args: argparse.Namespace) -> None:
    """Write the notebook with the one cell."""
    cell = {
        "cell_type": "code", "id": "live", "metadata": {}, "outputs": [], "execution_count": None,
        "source": CELL.format(nodes=args.nodes, nice=args.nice),
    }  # fmt: skip
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    path.write_text(json.dumps({"cells": [cell], "metadata": meta, "nbformat": 4, "nbformat_minor": 5}))


def measure(server: JupyterLab, page: Page, home: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Follow the run in the page for the time asked for; return what was noted on the way."""
    page.open("live.ipynb")
    page.run_all()
    page.page.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
    [folder] = (home / "lab" / "runs").iterdir()
    reader = RunReader(folder)
    page.until("the ranks", lambda: reader.poll() and len(reader.latest()) == args.nodes, 300)
    pids = [e["pid"] for e in reader.kind("started")]
    for pid in pids if args.nice else ():
        psutil.Process(pid).nice(args.nice)
    page.until("six figures", lambda: page.page.evaluate(FIGURES) >= 6, 300)
    devtools = page.page.context.new_cdp_session(page.page)
    devtools.send("Performance.enable")
    [kernel] = (psutil.Process(p) for p in server.kernel_pids())
    page.page.evaluate(WATCH)
    start, cpu = time.time(), psutil.cpu_times()
    own = [cpu_s(kernel), cpu_s(renderer())]
    seen: list[list[float]] = []
    memory: list[tuple[float, float, float, float]] = []
    while (passed := time.time() - start) < args.seconds:
        page.page.wait_for_timeout(1000)
        seen += page.page.evaluate("() => window.__seen.splice(0)")
        if len(memory) % 10 == 0:
            devtools.send("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}
        memory.append((passed, kernel.memory_info().rss, metrics["JSHeapUsedSize"], renderer().memory_info().rss))
    spent = [b - a for a, b in zip(cpu, psutil.cpu_times(), strict=True)]
    own = [cpu_s(p) - before for p, before in zip((kernel, renderer()), own, strict=True)]
    reader.poll()
    sent = [json.loads(line) for line in (home / "sent.jsonl").read_text().splitlines()]
    page.page.locator(".aiinfra-lab button", has_text="Stop").first.click()
    page.until("stopped", lambda: "stopped" in page.page.locator(".aiinfra-chip").first.inner_text(), 120)
    return {
        "sent": [s for s in sent if start <= s[0] < start + args.seconds], "seen": seen, "memory": np.array(memory),
        "ticks": reader.ticks, "figures": page.page.evaluate(FIGURES), "busy": 1 - spent[3] / sum(spent), "own_s": own,
        "errors": page.errors,
    }  # fmt: skip


def renderer() -> psutil.Process:
    """Return the largest renderer among our own children: the page's."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "--type=renderer" in process.cmdline():
                found[process] = process.memory_info().rss
    return max(found, key=lambda p: found[p])


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time that a process has taken: unlike wall time, no neighbour makes it longer."""
    used = process.cpu_times()
    return float(used.user + used.system)


def report(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Print one line per figure."""
    sent = {tick: (wall, mono) for wall, mono, tick in found["sent"]}
    late = 1e3 * lateness_s(sent, found["seen"])
    ends = found["ticks"].set_index("tick")["t_s"]
    age = 1e3 * np.array([mono - ends[t] for t, (_, mono) in sent.items() if t in ends.index])
    print(
        f"# {args.seconds:g} s, {args.nodes} ranks at nice {args.nice}, {os.cpu_count()} cores, {found['figures']} figures"
    )
    print(f"looks sent              {len(sent) / args.seconds:8.2f} per s, {len(late)} of {len(sent)} drawn")
    low, high = interval_of_p95(late)
    p50, p95 = np.percentile(late, (50, 95))
    print(f"kernel to figure        p50 {p50:.0f} ms, p95 {p95:.0f} ms ({low:.0f} to {high:.0f} ms), asked for: 250 ms")
    print(f"end of tick to kernel   p50 {np.median(age):.0f} ms, p95 {np.percentile(age, 95):.0f} ms")
    for name, column in (("kernel, resident", 1), ("page, JavaScript heap", 2), ("page, resident", 3)):
        values = found["memory"][:, column] / 2**20
        slope, width = slope_per_min(found["memory"][:, 0], values)
        print(f"{name:23s} {values[0]:8.1f} to {values[-1]:.1f} MiB, slope {slope:+.2f} \u00b1 {width:.2f} MiB/min")
    kept = found["ticks"].memory_usage(index=False).sum() / 2**20
    print(f"ticks of the run, kept  {kept:8.1f} MiB of the kernel's, {kept / args.seconds * 60:+.2f} MiB/min")
    looks = max(len(sent), 1)
    print(
        "processor per look      "
        + ", ".join(f"{n} {1e3 * s / looks:.0f} ms" for n, s in zip(("kernel", "page"), found["own_s"], strict=True))
    )
    print(f"processor               {found['busy']:.0%} busy; console errors: {len(found['errors'])}")


def lateness_s(sent: dict[float, tuple[float, float]], seen: list[list[float]]) -> np.ndarray[Any, Any]:
    """Return for each look how long it took until it, or a later one, was drawn; without those after the last frame noted."""
    frames = sorted(seen)
    newest = np.maximum.accumulate([tick for _, tick in frames])
    places = {tick: int(np.searchsorted(newest, tick)) for tick in sent}
    return np.array([frames[at][0] - sent[tick][0] for tick, at in places.items() if at < len(frames)])


def interval_of_p95(values: np.ndarray[Any, Any], pieces: int = 20) -> tuple[float, float]:
    """Return the 95 % interval of the 95th percentile, by drawing stretches of looks again: neighbours are alike."""
    chance = np.random.default_rng(0)
    stretches = np.array_split(values, pieces)
    again = [
        np.percentile(np.concatenate([stretches[i] for i in chance.integers(0, pieces, pieces)]), 95)
        for _ in range(1000)
    ]
    return float(np.percentile(again, 2.5)), float(np.percentile(again, 97.5))


def slope_per_min(at_s: np.ndarray[Any, Any], values: np.ndarray[Any, Any], pieces: int = 10) -> tuple[float, float]:
    """Return the slope per minute and half its 95 % interval, through the medians of stretches after the first fifth."""
    start = len(at_s) // 5
    pieces = min(pieces, (len(at_s) - start) // 2)
    if pieces < 3:
        return float("nan"), float("nan")
    x, y = (np.array([np.median(p) for p in np.array_split(v[start:], pieces)]) for v in (at_s / 60, values))
    slope, offset = np.polyfit(x, y, 1)
    rest = y - slope * x - offset
    error = np.sqrt(float(rest @ rest) / (pieces - 2) / float(((x - x.mean()) ** 2).sum()))
    return float(slope), float(stdtrit(pieces - 2, 0.975) * error)


if __name__ == "__main__":
    sys.exit(main())
