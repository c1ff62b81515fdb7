"""One rank of the kernel: `python -m mpi4py -m aiinfra_widgets.kernels.mpi.rank FILE SIZE JUPYTER_PID KEEPER_PID HOST`, under mpiexec."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from multiprocessing.connection import Client, Listener

import psutil
from mpi4py import MPI

from .wire import Wire

LOOPBACK, KEY_BYTES, HOST_BYTES, HELLO_S = "127.0.0.1", 32, 255, 5.0
#: The address of rank 0 for ranks on other machines, where its own name does not lead to it.
HOST_ENV = "AIINFRA_KERNEL_HOST"


def address() -> str:
    """Return where rank 0 listens: loopback where all ranks are on one machine, else its address in their network. Collective."""
    world, name = MPI.COMM_WORLD, bytearray(HOST_BYTES)
    own = socket.gethostname().encode()[:HOST_BYTES]
    name[: len(own)] = own
    names = bytearray(HOST_BYTES * world.size)
    world.Allgather(name, names)
    apart = any(names[i * HOST_BYTES : (i + 1) * HOST_BYTES] != name for i in range(world.size))
    asked = os.environ.get(HOST_ENV, "")
    if not apart and not asked:
        return LOOPBACK
    return asked or socket.gethostbyname(socket.gethostname())


def connect() -> dict[int, Wire]:
    """Return the wires of this rank: on rank 0 one to every other rank, elsewhere one to rank 0. Collective.

    The key and the port travel by MPI. The port is closed as soon as every rank has shown that it has the key.
    """
    world, secret, host = MPI.COMM_WORLD, bytearray(KEY_BYTES + 2 + HOST_BYTES), address()
    if world.rank:
        world.Bcast(secret)
        key, where, name = bytes(secret[:KEY_BYTES]), secret[KEY_BYTES : KEY_BYTES + 2], secret[KEY_BYTES + 2 :]
        wire = Wire(Client((name.rstrip(b"\0").decode(), int.from_bytes(where, "big"))), key)
        wire.send("hello", rank=world.rank)
        return {0: wire}
    wires: dict[int, Wire] = {}
    with Listener((host, 0), backlog=world.size) as listener:
        key = secrets.token_bytes(KEY_BYTES)
        port = listener.address[1].to_bytes(2, "big")
        secret[:] = key + port + host.encode().ljust(HOST_BYTES, b"\0")
        world.Bcast(secret)
        while len(wires) < world.size - 1:
            wire = Wire(listener.accept(), key)
            try:
                if wire.connection.poll(HELLO_S):
                    wires[wire.receive()["rank"]] = wire
            except (EOFError, OSError):
                wire.connection.close()  # somebody else on this machine tried the port
    return wires


def alive(pid: int) -> bool:
    """Whether a process lives; one that is dead and not collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def end_with(launcher: int, others: list[int]) -> None:
    """End this rank when its launcher or one of the others is gone; runs in a thread, so whatever a cell does."""
    while os.getppid() == launcher and all(alive(p) for p in others):
        time.sleep(1.0)
    os._exit(1)


def main(connection_file: str, size: int, others: list[int], home: str) -> None:
    """Serve cells until Jupyter ends the kernel.

    Args:
        connection_file: Written by Jupyter.
        size: Ranks that were asked for.
        others: Processes on the machine `home` without which this kernel has no use; 0 is not known.
        home: Where Jupyter is.
    """
    at_home = socket.gethostname() == home
    watched = [p for p in others if p and at_home]
    threading.Thread(target=end_with, args=(os.getppid(), watched), daemon=True).start()
    os.environ["JPY_PARENT_PID"] = str(os.getppid())  # ipykernel ends with its parent, and that is the launcher
    world = MPI.COMM_WORLD
    if world.size != size:
        raise SystemExit(
            f"asked for {size} ranks, MPI says {world.size}: the launcher is of another MPI than mpi4py; aiinfra doctor"
        )
    if world.rank == 0 and not at_home:
        raise SystemExit(
            f"rank 0 was started on {socket.gethostname()}, but Jupyter is on {home}, and its connection ends there; "
            "start Jupyter on the first machine of the job (docs/mpi-kernel.md)"
        )
    wires = connect()
    if MPI.COMM_WORLD.rank == 0:
        from .kernel import serve

        serve(connection_file, wires)
    else:
        from .worker import serve as work

        work(wires[0])
    os._exit(0)  # not MPI_Finalize, which hangs where cells left the ranks out of step


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(p) for p in sys.argv[3:5]], sys.argv[5])
