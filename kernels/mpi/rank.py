"""One rank of the kernel: `python -m mpi4py -m aiinfra_widgets.kernels.mpi.rank FILE SIZE JUPYTER_PID`, under mpiexec."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from multiprocessing.connection import Client, Listener

import psutil
from mpi4py import MPI

from .wire import Wire

HOST, KEY_BYTES, HELLO_S = "127.0.0.1", 32, 5.0


def connect() -> dict[int, Wire]:
    """Return the wires of this rank: on rank 0 one to every other rank, elsewhere one to rank 0. Collective.

    The key and the port travel by MPI. The port is closed as soon as every rank has shown that it has the key.
    """
    world, secret = MPI.COMM_WORLD, bytearray(KEY_BYTES + 2)
    if world.rank:
        world.Bcast(secret)
        wire = Wire(Client((HOST, int.from_bytes(secret[KEY_BYTES:], "big"))), bytes(secret[:KEY_BYTES]))
        wire.send("hello", rank=world.rank)
        return {0: wire}
    wires: dict[int, Wire] = {}
    with Listener((HOST, 0), backlog=world.size) as listener:
        key = secrets.token_bytes(KEY_BYTES)
        secret[:] = key + listener.address[1].to_bytes(2, "big")
        world.Bcast(secret)
        while len(wires) < world.size - 1:
            wire = Wire(listener.accept(), key)
            try:
                if wire.connection.poll(HELLO_S):
                    wires[wire.receive()["rank"]] = wire
            except (EOFError, OSError):
                wire.connection.close()  # somebody else on this machine tried the port
    return wires


def end_with(jupyter: int, launcher: int) -> None:
    """End this rank when mpiexec or Jupyter (0: not known) is gone; runs in a thread, so whatever a cell does."""
    while os.getppid() == launcher and (not jupyter or psutil.pid_exists(jupyter)):
        time.sleep(1.0)
    os._exit(1)


def main(connection_file: str, size: int, jupyter: int) -> None:
    """Serve cells until Jupyter ends the kernel."""
    threading.Thread(target=end_with, args=(jupyter, os.getppid()), daemon=True).start()
    if MPI.COMM_WORLD.size != size:
        raise SystemExit(
            f"asked for {size} ranks, MPI says {MPI.COMM_WORLD.size}: mpiexec is of another MPI; aiinfra doctor"
        )
    wires = connect()
    if MPI.COMM_WORLD.rank == 0:
        from .kernel import serve

        serve(connection_file, wires)
    else:
        from .worker import serve as work

        work(MPI.COMM_WORLD.rank, wires[0])
    os._exit(0)  # not MPI_Finalize, which hangs where cells left the ranks out of step


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
