"""Optimisers on flat buffers: any slice of them may be updated by itself, so that ranks can share the work and the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

State = Mapping[str, Tensor]


class Optimizer(ABC):
    """A rule for new parameters, elementwise; its state are flat tensors of the parameters' size.

    Attributes:
        state_names: Of its state tensors; they begin at zero.
    """

    state_names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def update(self, parameters: Tensor, gradients: Tensor, state: State, learning_rate: float, step: int) -> None:
        """Update in place.

        Args:
            parameters, gradients: Flat, the same slice of both; gradients may be used as scratch.
            state: The same slice of each state tensor.
            learning_rate: Of this step.
            step: 1 for the first one.
        """

    @classmethod
    def make(cls, name: str, momentum: float, weight_decay: float) -> Optimizer:
        """Return the optimiser that a Spec names."""
        return AdamW(weight_decay=weight_decay) if name == "adamw" else Sgd(momentum)


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent; with momentum as Polyak has it."""

    momentum: float = 0.9
    state_names: ClassVar[tuple[str, ...]] = ("momentum",)

    def update(self, parameters: Tensor, gradients: Tensor, state: State, learning_rate: float, step: int) -> None:
        """See `Optimizer`."""
        if self.momentum:
            gradients = state["momentum"].mul_(self.momentum).add_(gradients)
        parameters.add_(gradients, alpha=-learning_rate)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Loshchilov and Hutter 2019: moments of the gradient, decay apart from them."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    state_names: ClassVar[tuple[str, ...]] = ("momentum", "variance")

    def update(self, parameters: Tensor, gradients: Tensor, state: State, learning_rate: float, step: int) -> None:
        """See `Optimizer`."""
        m, v = state["momentum"], state["variance"]
        if self.weight_decay:
            parameters.mul_(1 - learning_rate * self.weight_decay)
        m.lerp_(gradients, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(gradients, gradients, value=1 - self.beta2)
        scale = torch.sqrt(v, out=gradients).div_((1 - self.beta2**step) ** 0.5).add_(self.epsilon)
        parameters.addcdiv_(m, scale, value=-learning_rate / (1 - self.beta1**step))
