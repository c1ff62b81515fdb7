"""A process group of torch over the active ranks, for torch's own engines. It exists beside MPI, on one machine.

The ranks find each other by a file in a folder that only this user may enter. gloo then connects them over the loopback
interface; tensors travel as bare bytes, and nothing that is received is unpickled.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from torch._C._distributed_c10d import FileStore

from ..errors import LabError
from ..ranks import nccl

_LONGEST_PATH = 4096


class TorchWorld:
    """torch's default process group over the ranks of `comm`; made anew when the ranks change.

    Args:
        comm: The active ranks; a collective.
        device: Of this rank: gloo on a processor, NCCL on GPUs.

    Raises:
        LabError: The ranks are on several machines, share a GPU, or there is a process group already.
    """

    def __init__(self, comm: MPI.Intracomm, device: torch.device) -> None:
        check_ranks(comm, device)
        self._folder = tempfile.TemporaryDirectory(prefix="aiinfra-torch-") if comm.rank == 0 else None
        name = np.zeros(_LONGEST_PATH, np.uint8)
        if self._folder is not None:
            text = self._folder.name.encode()
            name[: len(text)] = np.frombuffer(text, np.uint8)
        comm.Bcast(name, 0)
        file = Path(name.tobytes().rstrip(b"\0").decode()) / "store"
        os.environ["GLOO_SOCKET_IFNAME"] = loopback()
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "nccl",
            store=FileStore(str(file), comm.size),
            rank=comm.rank,
            world_size=comm.size,
            device_id=device if device.type == "cuda" else None,
        )
        self._open = True

    def close(self) -> None:
        """Give the group back; ranks that still wait for this one get an error. May be called twice."""
        if self._open:
            self._open = False
            dist.destroy_process_group()
        if self._folder is not None:
            self._folder.cleanup()


def check_ranks(comm: MPI.Intracomm, device: torch.device) -> None:
    """Refuse ranks that torch's engines cannot use; a collective.

    Raises:
        LabError: With the reason.
    """
    local = comm.Split_type(MPI.COMM_TYPE_SHARED)
    neighbours = local.size
    local.Free()
    if neighbours != comm.size:
        raise LabError(
            f"engine: torch's engines connect ranks over loopback, and only {neighbours} of {comm.size} ranks are on this "
            "machine; use engine=lab"
        )
    if device.type == "cuda" and not nccl.possible(comm, device):
        raise LabError(
            f"engine: torch's engines need NCCL and a GPU for each rank, and {comm.size} ranks do not have that here; "
            "use engine=lab, fewer nodes, or device=cpu"
        )
    if dist.is_initialized():
        raise LabError(
            "engine: torch has a process group already, and can have one; close the engine that made it first"
        )


def loopback() -> str:
    """Return the name of the loopback interface: lo, or lo0 where Unix comes from Berkeley."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), names[0])
