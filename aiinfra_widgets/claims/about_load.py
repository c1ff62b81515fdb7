"""Claims on load and shares: response time, utilisation, performance as a sum, and resource use."""

from __future__ import annotations

import numpy as np

from ..models import blocking_step, mmc_response_s, naive_response_s, overlapped_step
from .claim import Axes, Claim, Example, Input
from .measure_processes import WAYS, measure_held_cores, measure_overlap
from .measure_service import measure_responses

#: A transfer that is cut into so many pieces, each sent as soon as it is there, is as good as continuous.
PIECES = 64
#: The transfer time at which the figure of S2-P is 1.
REFERENCE_S = 20.0

RESPONSE = Claim(
    id="S0-T",
    source="S0, AI infrastructure for new workloads",
    about="Response time under load",
    formula="T = N C / (N L) = C / L",
    latex=r"T = \frac{N C}{N L} = \frac{C}{L}",
    inputs=(
        Input("nodes", "N", "Nodes", "1", "4", low=1, above=False, whole=True),
        Input("capacity_per_s", "C", "Capacity of a node", "request/s", "100 TPS"),
        Input("load_per_s", "L", "Load of a node", "request/s", "100 TPS"),
    ),
    result="s",
    compute=lambda nodes, capacity_per_s, load_per_s: (nodes * capacity_per_s) / (nodes * load_per_s),
    examples=(
        Example({"nodes": "4", "capacity_per_s": "100 TPS", "load_per_s": "100 TPS"}, "1 s"),
        Example(
            {"nodes": "4", "capacity_per_s": "100 TPS", "load_per_s": "200 TPS"}, "0.5 s",
            "twice the load, half the number, and the text calls that a doubled response time.",
        ),
        Example({"nodes": "8", "capacity_per_s": "1 TPS", "load_per_s": "2 TPS"}, "0.5 s"),
    ),
    wrong="A ratio of two rates has no unit of time. It falls as the load grows, the nodes cancel out, and there is no "
    "queue in it. In every one of its examples the servers cannot follow.",
    right_name="M/M/c queue",
    right=lambda nodes, capacity_per_s, load_per_s: mmc_response_s(nodes * load_per_s, capacity_per_s, nodes),
    axes=Axes(
        "load_per_s", "Load, share of the capacity",
        lambda capacity_per_s, **_: capacity_per_s * np.linspace(0.1, 1.2, 56),
        "Response (the claim as so many service times)", "s",
        says=lambda nodes, capacity_per_s, load_per_s: naive_response_s(capacity_per_s, load_per_s) / capacity_per_s,
        right=lambda nodes, capacity_per_s, load_per_s: mmc_response_s(nodes * load_per_s, capacity_per_s, nodes),
        share_of="capacity_per_s",
    ),
    measure=measure_responses,
)  # fmt: skip

UTILISATION = Claim(
    id="S1-util",
    source="S1, evolution of AI infrastructure for large-scale training",
    about="Utilisation of resources",
    formula="utilisation = allocated / available",
    latex=r"U = \frac{\text{allocated}}{\text{available}}",
    inputs=(
        Input("allocated", "a", "Allocated cores", "1", "8 cores", above=False),
        Input("available", "n", "Available cores", "1", "8 cores"),
        Input("busy_frac", "b", "Busy share of the allocated", "1", "60 %", ours=True, above=False, high=1.0),
    ),
    result="1",
    compute=lambda allocated, available: allocated / available,
    examples=(),
    wrong="What is allocated is not what is used: a job that waits for its data holds all of its cores.",
    right_name="Busy time over time",
    right=lambda allocated, available, busy_frac: allocated * busy_frac / available,
    axes=Axes(
        "busy_frac", "Share of the time that the holders compute",
        lambda **_: np.linspace(0, 1, 51), "Utilisation", "frac",
        says=lambda allocated, available, busy_frac: 0 * np.asarray(busy_frac) + allocated / available,
        right=lambda allocated, available, busy_frac: allocated * busy_frac / available,
    ),
    measure=measure_held_cores,
)  # fmt: skip

PERFORMANCE = Claim(
    id="S2-P",
    source="S2, resources, storage, platform, cloud and edge",
    about="Performance of a platform",
    formula="P = C / T_train + C / T_infer + S / T",
    latex=r"P = \frac{C}{T_{\mathrm{train}}} + \frac{C}{T_{\mathrm{infer}}} + \frac{S}{T}",
    inputs=(
        Input("work_flop", "C", "Computation", "flop", "2 Tflop", ours=True),
        Input("train_s", "T_train", "Training time", "s", "60 s", ours=True),
        Input("infer_s", "T_infer", "Inference time", "s", "20 s", ours=True),
        Input("size_bytes", "S", "Data", "B", "10 GB", ours=True),
        Input("transfer_s", "T", "Transfer time", "s", "20 s", ours=True),
    ),
    result="flop/s",
    compute=lambda work_flop, train_s, infer_s, size_bytes, transfer_s: work_flop / train_s
    + work_flop / infer_s
    + size_bytes / transfer_s,
    examples=(),
    wrong="Arithmetic per time and bytes per time are added. And a sum rewards the fast parts, while a job waits for the slow one.",
    right_name="Jobs per time, one part after the other",
    right=lambda work_flop, train_s, infer_s, size_bytes, transfer_s: 1 / (train_s + infer_s + transfer_s),
    right_unit="1/s",
    axes=Axes(
        "transfer_s", "Transfer time",
        lambda transfer_s, **_: transfer_s * np.linspace(0.1, 5, 50), "Relative to a transfer of 20 s", "x",
        says=lambda work_flop, train_s, infer_s, size_bytes, transfer_s: (
            (work_flop / train_s + work_flop / infer_s + size_bytes / transfer_s)
            / (work_flop / train_s + work_flop / infer_s + size_bytes / REFERENCE_S)
        ),
        right=lambda work_flop, train_s, infer_s, size_bytes, transfer_s: (
            (train_s + infer_s + REFERENCE_S) / (train_s + infer_s + transfer_s)
        ),
    ),
    senseless="A sum of unlike things is no quantity: there is nothing that a meter could show. The figure adds the bare "
    "numbers in base units all the same, relative to their sum at 20 s.",
)  # fmt: skip

RESOURCES = Claim(
    id="S2-R",
    source="S2, resources, storage, platform, cloud and edge",
    about="Share of the time that computes",
    formula="R = (T_train + T_infer) / (T_train + T_infer + T)",
    latex=r"R = \frac{T_{\mathrm{train}} + T_{\mathrm{infer}}}{T_{\mathrm{train}} + T_{\mathrm{infer}} + T}",
    inputs=(
        Input("train_s", "T_train", "Training time", "s", "60 s", ours=True),
        Input("infer_s", "T_infer", "Inference time", "s", "20 s", ours=True),
        Input("transfer_s", "T", "Transfer time", "s", "20 s", ours=True, above=False),
        Input("overlap", "o", "Overlap (0 or 1)", "1", "1", ours=True, above=False, high=1.0, whole=True),
    ),
    result="1",
    compute=lambda train_s, infer_s, transfer_s: (train_s + infer_s) / (train_s + infer_s + transfer_s),
    examples=(),
    wrong="In order as long as nothing overlaps. The article itself advises overlap, and then the longer of the two counts, not the sum.",
    right_name="The longer of the two, with overlap",
    right=lambda train_s, infer_s, transfer_s, overlap: float(_computing(train_s, infer_s, transfer_s, overlap)),
    axes=Axes(
        "transfer_s", "Transfer time",
        lambda train_s, infer_s, **_: (train_s + infer_s) * np.linspace(0, 2, 41), "R, share of the time that computes", "frac",
        says=lambda train_s, infer_s, transfer_s, **_: (train_s + infer_s) / (train_s + infer_s + transfer_s),
        right=lambda train_s, infer_s, transfer_s, overlap: _computing(train_s, infer_s, transfer_s, overlap),
        ways=WAYS,
    ),
    measure=measure_overlap,
)  # fmt: skip


def _computing(train_s: float, infer_s: float, transfer_s: float, overlap: float) -> float:
    """Return the share of the time that computes: the lab's own model of a step, with and without overlap."""
    work = train_s + infer_s
    if overlap:
        whole = overlapped_step(work, transfer_s, PIECES, backward_frac=1.0).step_time_s
    else:
        whole = blocking_step(work, transfer_s).step_time_s
    return work / whole  # type: ignore[no-any-return]
