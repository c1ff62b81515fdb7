"""The one set of numbers that every prediction of a training step uses: what each means, and between which bounds it can lie.

They say by how much real kernels, libraries and fabrics fall short of a data sheet. None belongs to one published row, one
source or one model. `validation/fit.py` fits them on the shipped published rows, each held near a value that the literature
gives (`expected` +- `spread`); `aiinfra validate` prints them, and `--cross` fits them again with a source left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from dataclasses import field as attribute
from typing import Any

from .._check import need


def _number(value: float, low: float, high: float, expected: float, spread: float, meaning: str) -> float:
    facts = {"low": low, "high": high, "expected": expected, "spread": spread, "meaning": meaning}
    found: float = attribute(default=value, metadata=facts)
    return found


@dataclass(frozen=True, slots=True)
class Parameters:
    """See the module; `Parameters.facts()` has meaning, bounds and expectation of each.

    Raises:
        ModelInputError: A value outside its bounds.
    """

    operand_traffic: float = _number(
        1.21, 0.0, 4.0, 1.0, 0.5, "operand bytes of a matrix product whose time adds to its arithmetic, as a share"
    )
    newer_rate_frac: float = _number(
        0.906,
        0.7,
        1.1,
        0.87,
        0.03,
        "rate of Hopper and newer devices in a job, against their best matrix product alone (power, clocks)",
    )
    fp8_rate_frac: float = _number(1, 0.5, 1.0, 0.95, 0.05, "the same for 8-bit products: casts and scales")
    elementwise_traffic: float = _number(
        1.77, 0.3, 3.0, 1.2, 0.3, "bytes that element-wise kernels move, against one read and one write of each tensor"
    )
    compiled_elementwise_traffic: float = _number(
        0.643, 0.2, 2.0, 0.7, 0.2, "the same where a compiler fuses them into the products"
    )
    unfused_elementwise_traffic: float = _number(
        1.69, 0.5, 4.0, 1.5, 0.4, "the same for software before fused attention, with dropout"
    )
    backward_elementwise: float = _number(
        2.06, 1.0, 3.0, 1.7, 0.3, "element-wise bytes of the backward pass against the forward pass"
    )
    memory_frac: float = _number(0.85, 0.6, 1.0, 0.85, 0.0, "share of the memory bandwidth that such kernels reach")
    score_passes: float = _number(
        6.65, 2.0, 14.0, 6.0, 2.0, "times that unfused attention moves its matrix of scores, forward"
    )
    score_passes_backward: float = _number(1.34, 0.5, 2.0, 1.3, 0.3, "the same backward, against forward")
    flash_frac: float = _number(
        0.396,
        0.2,
        0.9,
        0.5,
        0.15,
        "rate of fused attention against the best matrix product, on the device it was written for",
    )
    flash_ported_frac: float = _number(
        0.265, 0.1, 0.9, 0.3, 0.09, "the same on a newer device (warp-level instructions on Hopper)"
    )
    flash_native_frac: float = _number(0.671, 0.3, 0.9, 0.6, 0.08, "the same for kernels written for Hopper and newer")
    misaligned_head: float = _number(
        6.61, 1.0, 16.0, 6.0, 3.0, "slow-down of unfused attention's products where the head size is no multiple of 8"
    )
    layer_overhead_s: float = _number(
        2.27e-05, 0.0, 2e-4, 2e-5, 2e-5, "time per layer and pass in which the device waits for its host"
    )
    node_link_frac: float = _number(
        0.491, 0.4, 1.0, 0.7, 0.08, "share of the link inside a node that collectives in a job reach"
    )
    fabric_frac: float = _number(0.626, 0.3, 1.0, 0.72, 0.1, "share of the fabric that they reach")
    hidden_comm_cost: float = _number(
        0.211,
        0.0,
        1.0,
        0.25,
        0.15,
        "what hidden gathers of weights cost: share of their time by which they slow arithmetic",
    )
    overlapped_comm_cost: float = _number(
        0.137, 0.0, 1.0, 0.2, 0.15, "the same for tensor, pipeline and gradient traffic where software overlaps it"
    )
    p2p_exposed: float = _number(
        1.46, 0.0, 4.0, 1.0, 0.3, "exposed transfers between stages per micro-batch and chunk, against one each way"
    )
    optimizer_bytes: float = _number(30.0, 16.0, 60.0, 30.0, 0.0, "bytes that the update of one parameter moves")

    def __post_init__(self) -> None:
        for name, fact in self.facts().items():
            need(name, getattr(self, name), fact["low"], fact["high"], hint=fact["meaning"])

    @classmethod
    def facts(cls) -> dict[str, dict[str, Any]]:
        """Return low, high, expected, spread and meaning of every parameter."""
        return {f.name: dict(f.metadata) for f in fields(cls)}

    @classmethod
    def fitted(cls) -> list[str]:
        """Return the names of those that are fitted; the others are taken from the literature as they are."""
        return [name for name, fact in cls.facts().items() if float(fact["spread"]) > 0]


PARAMETERS = Parameters()
