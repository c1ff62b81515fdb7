"""Rows of communication: bus bandwidth of collectives over sizes, and copies over one link."""

from __future__ import annotations

import re

import numpy as np

from ..errors import LabError, ModelInputError
from ..machine import catalog
from ..models.collectives import busbw_bytes_per_s
from ..models.gpu_collectives import COLLECTIVE_PARAMETERS, CollectiveParameters, gpu_collective_time_s, gpu_copy_time_s
from ..planning import hardware
from .rows import Row

METRICS = ("busbw_GBps", "p2p_GBps", "h2d_GBps")
#: A published rate without a size is of a large array.
LARGE_BYTES = 4 * 2**30
#: NVLink generations whose switches reduce (NVLS); rings in older ones.
REDUCING = ("nvlink-4", "nvlink-5")


def predict_comm_row(row: Row, parameters: CollectiveParameters = COLLECTIVE_PARAMETERS) -> tuple[float | None, str]:
    """Return the bandwidth of a row in GB/s, or None and why not.

    The size is read from the notes ("payload N bytes"); where there is none the array is large.

    Valid when: the node of the catalog is the one that was measured.
    """
    try:
        return _predict_gb_per_s(row, parameters), ""
    except LabError as error:
        return None, f"{row.where}: {error}"


def _predict_gb_per_s(row: Row, parameters: CollectiveParameters) -> float:
    ranks = row.number("n_accel")
    if ranks is None:
        raise ModelInputError("n_accel was not published")
    key = catalog.find("accelerators", row["accelerator"])
    node = hardware.node_for(row["accelerator"], row["source"])
    cluster = hardware.cluster(node, "bf16")
    link = catalog.text("nodes", node, "node_link")
    found = re.search(r"payload (\d+) bytes", row["notes"])
    size = float(found[1]) if found else LARGE_BYTES
    if row["metric"] == "h2d_GBps":
        generation = re.search(r"PCIe ?(\d)", row["notes"])
        if generation is None:
            raise ModelInputError(f"the notes do not say which PCIe generation {key} sits behind")
        bus = catalog.item("links", f"pcie-{generation[1]}-x16")["bandwidth_oneway_bytes_per_s"].value
        return size / float(gpu_copy_time_s(size, bus, parameters)) / 1e9
    inside = cluster.node_bandwidth_oneway_bytes_per_s
    if row["metric"] == "p2p_GBps":
        return size / float(gpu_copy_time_s(size, inside, parameters)) / 1e9
    if ranks < 2:
        raise ModelInputError("a collective needs two ranks, and n_accel is 1")
    nodes = np.ceil(ranks / cluster.per_node)
    across = cluster.fabric_bandwidth_oneway_bytes_per_s * cluster.per_node
    time_s = gpu_collective_time_s(
        size,
        ranks,
        inside if nodes == 1 else min(inside, across),
        in_switch=nodes == 1 and link in REDUCING,
        fabric_latency_s=cluster.fabric_latency_s,
        nodes=nodes,
        parameters=parameters,
    )
    return float(busbw_bytes_per_s("allreduce", size, time_s, ranks)) / 1e9
