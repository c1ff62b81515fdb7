"""Summing gradients from GPU to GPU, where every active rank has a device of its own. Several ranks on one device cannot.

Not measured on several GPUs yet: none were at hand. The path that stages through host memory is the one that is tested.
"""

from __future__ import annotations

import socket

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from torch import Tensor


def possible(comm: MPI.Intracomm, device: torch.device) -> bool:
    """Whether every rank of `comm` has a CUDA device that no other rank of its host uses, on one host."""
    mine = np.array([device.index if device.type == "cuda" else -1, 1 if dist.is_nccl_available() else 0], np.int64)
    everyone = np.empty((comm.size, 2), np.int64)
    comm.Allgather(mine, everyone)
    devices = everyone[:, 0]
    one_host = comm.Split_type(MPI.COMM_TYPE_SHARED).size == comm.size
    return bool(one_host and (devices >= 0).all() and (everyone[:, 1] == 1).all() and len(set(devices)) == comm.size)


def start(comm: MPI.Intracomm, device: torch.device) -> None:
    """Make torch's process group over the ranks of `comm`, all on this host, each with a device of its own; costs seconds."""
    port = np.zeros(1, np.int64)
    with socket.socket() as free:
        if comm.rank == 0:
            free.bind(("127.0.0.1", 0))
            port[0] = free.getsockname()[1]
    comm.Bcast(port, 0)
    where = f"tcp://127.0.0.1:{int(port[0])}"
    dist.init_process_group("nccl", init_method=where, rank=comm.rank, world_size=comm.size, device_id=device)


class NcclSum:
    """The sum of gradients over the active ranks; made anew when membership changes."""

    def __init__(self, comm: MPI.Intracomm, device: torch.device) -> None:
        start(comm, device)

    def sum(self, tensor: Tensor) -> None:
        """Sum `tensor` (on this rank's device) over all ranks, in place."""
        dist.all_reduce(tensor)

    def close(self) -> None:
        """Give the group back."""
        dist.destroy_process_group()
