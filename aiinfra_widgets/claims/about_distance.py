"""Claims on moving data: over a link, and over a distance."""

from __future__ import annotations

import numpy as np

from ..models import point_to_point_time_s
from .claim import Axes, Claim, Example, Input
from .measure_link import measure_at_no_distance, measure_transfer

#: Light in fibre: two thirds of its speed in vacuum.
LIGHT_IN_FIBRE_M_PER_S = 2.0e8
#: What the printed 8 s are of the article's own formula for 10 GB over 1 Gbit/s: the claim as its example applies it.
PRINTED_SHARE = 8.0 / (10e9 / 1.25e8)

TRANSFER = Claim(
    id="S1-xfer",
    source="S1, evolution of AI infrastructure for large-scale training",
    about="Time of a transfer",
    formula="delay = size / rate",
    latex=r"t = S / B",
    inputs=(
        Input("size_bytes", "S", "Size", "B", "10 GB"),
        Input("rate_bytes_per_s", "B", "Data rate", "B/s", "1 Gbit/s"),
        Input("latency_s", "l", "Latency", "s", "1 ms", ours=True, above=False),
    ),
    result="s",
    compute=lambda size_bytes, rate_bytes_per_s: size_bytes / rate_bytes_per_s,
    examples=(Example({"size_bytes": "10 GB", "rate_bytes_per_s": "1 Gbit/s"}, "8 s"),),
    wrong="Bits and bytes got mixed up: ten gigabytes are eighty gigabits. Latency and the cost of the protocol are missing, too.",
    right_name="Latency + size / bandwidth",
    right=lambda size_bytes, rate_bytes_per_s, latency_s: point_to_point_time_s(size_bytes, rate_bytes_per_s, latency_s),
    axes=Axes(
        "size_bytes", "Size", lambda size_bytes, **_: size_bytes * np.linspace(0, 1.1, 45),
        "Time (the claim as its example applies it)", "s",
        says=lambda size_bytes, rate_bytes_per_s, **_: PRINTED_SHARE * size_bytes / rate_bytes_per_s,
        right=lambda size_bytes, rate_bytes_per_s, latency_s: point_to_point_time_s(size_bytes, rate_bytes_per_s, latency_s),
    ),
    measure=measure_transfer,
)  # fmt: skip

EDGE = Claim(
    id="S1-edge",
    source="S1, evolution of AI infrastructure for large-scale training",
    about="Delay to an edge node",
    formula="delay = distance / data rate",
    latex=r"t = d / B",
    inputs=(
        Input("distance_m", "d", "Distance", "m", "100 km", above=False),
        Input("rate_bytes_per_s", "B", "Data rate", "B/s", "10 Mbit/s"),
        Input("size_bytes", "S", "Size of the message", "B", "100 kB", ours=True, above=False),
        Input("processing_s", "w", "Work at both ends", "s", "1 ms", ours=True, above=False),
    ),
    result="s",
    compute=lambda distance_m, rate_bytes_per_s: distance_m / rate_bytes_per_s,
    examples=(Example({"distance_m": "100 km", "rate_bytes_per_s": "10 Mbit/s"}, "6 s"),),
    wrong="Metres over bits per second are no time. Over 100 km light needs half a millisecond; what takes long "
    "is pushing the message into the link, and the message is not in the formula.",
    right_name="Propagation + transmission + work",
    right=lambda distance_m, rate_bytes_per_s, size_bytes, processing_s: _edge_s(distance_m, rate_bytes_per_s, size_bytes, processing_s),
    axes=Axes(
        "distance_m", "Distance", lambda distance_m, **_: max(distance_m, 1e3) * np.linspace(0, 2, 41),
        "Delay (the claim scaled to its printed number)", "s",
        says=lambda distance_m, rate_bytes_per_s, **_: 6.0 * (distance_m / 1e5) * (1.25e6 / rate_bytes_per_s),
        right=lambda distance_m, rate_bytes_per_s, size_bytes, processing_s: _edge_s(
            distance_m, rate_bytes_per_s, size_bytes, processing_s
        ),
        log=True,
    ),
    measure=measure_at_no_distance,
)  # fmt: skip


def _edge_s(distance_m: float, rate_bytes_per_s: float, size_bytes: float, processing_s: float) -> float:
    """Return propagation, then transmission, then the work at both ends."""
    travel = distance_m / LIGHT_IN_FIBRE_M_PER_S + processing_s
    return point_to_point_time_s(size_bytes, rate_bytes_per_s, travel)  # type: ignore[no-any-return]
