"""A net's parameters, gradients and optimiser state as flat buffers.

# P parameters, n active ranks
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

#: Arrival times travel as float32 in two parts, whole ticks of COARSE_S and the rest, so that they stay exact to 0.1 us.
COARSE_S = 1 / 1024
WRAP = 2**20  # whole numbers up to here, and their differences, are exact in float32


class FlatBuffers:
    """Flat float32 buffers of P elements each, on the device, that the module's tensors are views of.

    Attributes:
        parameters, gradients: What the module's parameters and their gradients are views of.
        optimizer_state: Tensors of the optimiser, by name, zeros at first.
        tail_host: 2 + 2n elements right behind the gradients, in host memory: loss, ballot, n coarse and n fine arrival times.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        tail: int,
        device: torch.device,
        state_names: Sequence[str] = ("momentum",),
    ) -> None:
        ordered = parameters[::-1]  # backward finishes the last layer first
        size = sum(p.numel() for p in ordered)
        self.size, self.tail = size, tail
        pinned = device.type == "cuda"
        self.parameters = torch.empty(size, device=device)
        self.optimizer_state = {name: torch.zeros(size, device=device) for name in state_names}
        whole = torch.zeros(size + tail, pin_memory=pinned)
        self._whole = whole.numpy()
        self.gradients_host_tensor = whole[:size]
        self.gradients = whole[:size] if device.type == "cpu" else torch.zeros(size, device=device)
        self.tail_host = self._whole[size:]
        at = 0
        self.slices: list[tuple[torch.nn.Parameter, slice]] = []
        for p in ordered:
            part = slice(at, at + p.numel())
            self.parameters[part] = p.detach().reshape(-1)
            p.data = self.parameters[part].view_as(p)
            p.grad = self.gradients[part].view_as(p)
            self.slices.append((p, part))
            at = part.stop

    @property
    def momentum(self) -> torch.Tensor:
        """The optimiser's tensor of that name."""
        return self.optimizer_state["momentum"]

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint or a newcomer needs: the parameters, and the optimiser's tensors."""
        return {"parameters": self.parameters, **self.optimizer_state}

    def reduced(self, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The part of the buffer that n ranks sum: gradients, loss, arrival times. Contiguous float32."""
        return self._whole[: self.size + 2 + 2 * n]

    def bucket(self, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A slice of the buffer, to be summed by itself."""
        return self._whole[start:stop]

    def put_tail(self, rank: int, n: int, loss: float, ballot: int, now_s: float) -> None:
        """Write this rank's loss, ballot (exact below 2**24) and arrival time; zero what the others will add."""
        tail = self.tail_host[: 2 + 2 * n]
        tail[:] = 0.0
        coarse = math.floor(now_s / COARSE_S)
        tail[0] = loss
        tail[1] = ballot
        tail[2 + rank] = coarse % WRAP
        tail[2 + n + rank] = now_s - coarse * COARSE_S

    def read_tail(self, rank: int, n: int) -> tuple[float, int, float]:
        """Return the global loss, the sum of ballots, and how many seconds after this rank the last one arrived."""
        tail = self.tail_host
        coarse = (tail[2 : 2 + n] - tail[2 + rank] + WRAP / 2) % WRAP - WRAP / 2
        later = coarse * COARSE_S + (tail[2 + n : 2 + 2 * n] - tail[2 + n + rank])
        return float(tail[0]), int(tail[1]), float(later.max())
