"""Summing gradients bucket by bucket while the backward pass still makes the next ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mpi4py import MPI
from torch import Tensor

from ..models import bucket_bounds
from .buffers import FlatBuffers
from .collectives import PIECE_BYTES, allreduce
from .link import InjectedLink


class Overlap:
    """Starts the sum of a bucket as soon as backward has filled it, and waits for all of them at the end.

    Without an injected link the buckets go through MPI's non-blocking all-reduce. With one, a thread sends them one after
    another through the delayed collectives: while a message is held up this core computes on, as with a real network card.
    """

    def __init__(
        self, comm: MPI.Intracomm, flat: FlatBuffers, link: InjectedLink, algorithm: str, bucket_bytes: int
    ) -> None:
        self.comm, self.flat, self.link, self.algorithm = comm, flat, link, algorithm
        self._requests: list[MPI.Request] = []
        self._futures: list[Future[int]] = []
        self._thread = ThreadPoolExecutor(1, "allreduce") if link.active else None
        self._bounds = bucket_bounds([p.numel() for p, _ in flat.slices], bucket_bytes // 4)
        self._missing: list[int] = []
        self._hooks = []
        for bucket, (first, last) in enumerate(self._bounds):
            hook = self._filled(bucket)
            self._hooks += [p.register_post_accumulate_grad_hook(hook) for p, _ in flat.slices[first:last]]

    def arm(self) -> None:
        """Before backward: nothing is filled yet."""
        self._missing = [last - first for first, last in self._bounds]
        self._requests.clear()
        self._futures.clear()

    def finish(self) -> int:
        """After backward: the tail goes last; wait for everything. Returns bytes handed to the network."""
        n = self.comm.size
        self._start(self.flat.size, self.flat.size + 2 + 2 * n)
        MPI.Request.Waitall(self._requests)
        return sum(f.result() for f in self._futures) or 2 * (n - 1) * (self.flat.size + 2 + 2 * n) * 4 // n

    def remove(self) -> None:
        """Take the hooks off the parameters and end the thread."""
        for hook in self._hooks:
            hook.remove()
        if self._thread is not None:
            self._thread.shutdown()

    def _filled(self, bucket: int) -> Callable[[Tensor], Any]:
        first, last = self._bounds[bucket]
        start, stop = self.flat.slices[first][1].start, self.flat.slices[last - 1][1].stop

        def hook(_: Tensor) -> None:
            self._missing[bucket] -= 1
            if self._missing[bucket] == 0:
                self._start(start, stop)

        return hook

    def _start(self, start: int, stop: int) -> None:
        """Begin to sum a slice of the buffer."""
        if self._thread is not None:
            piece = self.flat.bucket(start, stop)
            self._futures.append(self._thread.submit(allreduce, self.comm, piece, self.link, self.algorithm))
            return
        for at in range(start, stop, PIECE_BYTES // 4):
            piece = self.flat.bucket(at, min(at + PIECE_BYTES // 4, stop))
            self._requests.append(self.comm.Iallreduce(MPI.IN_PLACE, piece))
