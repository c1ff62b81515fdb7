"""A machine's calibration as functions of size, and what answering costs by it. Neither torch nor a clock is needed.

# B requests in a batch, D width, H heads, L cached tokens of the longest, T tokens of a prompt
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

from ..machine.profile import Machine
from ..models.grid import TimeGrid
from ..models.links import MeasuredLink
from .facts import Layer, small_cnn
from .gpt_facts import GptFacts

Which = Literal["median", "q25", "q75"]
#: Stands for nothing where logarithms are taken.
LEAST_S = 1e-9


class Calibrated:
    """The probes of a machine as functions of size, all at their median or all at one quartile."""

    def __init__(self, machine: Machine, which: Which = "median") -> None:
        self.machine, self.which = machine, which

    def one(self, name: str, **at: Any) -> float:
        """Return the figure of one probe.

        Raises:
            ModelInputError: The machine is not calibrated, or not for this.
        """
        return float(getattr(self.machine.need(name, **at)[0], self.which))

    def grid(self, name: str, *axes: str, **at: Any) -> TimeGrid:
        """Return the time that a probe took over `axes`.

        Raises:
            ModelInputError: As `one`.
        """
        rows = self.machine.need(name, **at)
        return TimeGrid.from_points(axes, [(p.at, getattr(p, self.which)) for p in rows])

    def link(self, where: Literal["within", "between"]) -> MeasuredLink:
        """Return the link within one host, or between two.

        Raises:
            ModelInputError: As `one`.
        """
        rows = self.machine.need("link", where=where)
        return MeasuredLink.from_points((p.at["bytes"], getattr(p, self.which)) for p in rows)


class AnswerTimes(Calibrated):
    """Seconds of answering with a net: operations forward only by their measured times, and what tiny nets cost beyond theirs.

    Valid when: one rank on one core that nobody else uses; layers of the kinds and sizes that were probed.
    Off by: 5 to 15 % too short, since operations in a row find their code and data nearer than in a net; more after a pause
        (see `pause_s`), and where neighbours use the caches.
    """

    @cached_property
    def _kinds(self) -> dict[str, TimeGrid]:
        by_elements = ("activation_forward", "gelu_forward", "norm_forward", "pool_forward")
        return {
            "linear": self.grid("linear_forward", "width", "batch"),
            "conv": self.grid("conv_forward", "inputs", "outputs", "batch"),
            "decode": self.grid("decode_attention", "sequence_heads", "cached"),
            "prefill": self.grid("prefill_attention", "sequence_heads", "tokens"),
            **{name.removesuffix("_forward"): self.grid(name, "elements") for name in by_elements},
        }

    # --- nets of the catalog ------------------------------------------------------------------------------------------
    def classify_s(self, layers: tuple[Layer, ...], b: Any) -> Any:
        """Return seconds to classify b samples by a net of `layers`."""
        return sum(self._layer_s(layer, b) for layer in layers) + self._classify_glue.time_s(b)

    def _layer_s(self, layer: Layer, b: Any) -> Any:
        kinds, d = self._kinds, layer.dims
        match layer.kind:
            case "linear":
                return kinds["linear"].time_s(math.sqrt(d["in"] * d["out"]), b)
            case "conv":
                pixels = self.machine.need("conv_forward")[0].at["pixels"]
                return kinds["conv"].time_s(d["in_channels"], d["out_channels"], b * d["height"] * d["width"] / pixels)
            case "activation" | "pool":
                return kinds[layer.kind].time_s(layer.in_elements * b)
            case _:
                return 0.0

    @cached_property
    def _classify_glue(self) -> TimeGrid:
        """What a tiny net takes beyond its operations, over b: fetching pictures, calls, the answers as numbers."""
        points = []
        for whole in self.machine.need("classify", rest_s=0.0):
            layers = small_cnn(tuple(whole.at["channels"]), math.isqrt(whole.at["pixels"]))
            operations = float(sum(self._layer_s(layer, whole.at["batch"]) for layer in layers))
            points.append((whole.at, max(getattr(whole, self.which) - operations, LEAST_S)))
        return TimeGrid.from_points(("batch",), points)

    # --- language models ----------------------------------------------------------------------------------------------
    def prefill_s(self, facts: GptFacts, b: Any, tokens: Any) -> Any:
        """Return seconds to read b prompts of so many tokens, up to the first token of each answer."""
        attention = self._kinds["prefill"].time_s(b * facts.heads, tokens)
        return self._passing_s(facts, b * tokens, b, attention)

    def decode_s(self, facts: GptFacts, b: Any, cached: Any) -> Any:
        """Return seconds of one token for each of b sequences, with so many tokens in the cache of the longest."""
        return self._passing_s(facts, b, b, self._kinds["decode"].time_s(b * facts.heads, cached))

    def _passing_s(self, facts: GptFacts, rows: Any, b: Any, attention: Any) -> Any:
        once, block = self._decode_glue_s
        head = self._kinds["linear"].time_s(math.sqrt(facts.width * facts.vocab), b)
        return once + head + facts.layers * (block + self._block_s(facts.width, rows) + attention)

    def _block_s(self, width: int, rows: Any) -> Any:
        """Seconds of the operations of one block, without attention: four linear layers, two norms, GELU, two sums."""
        kinds = self._kinds
        linears = sum(
            kinds["linear"].time_s(math.sqrt(a * b) * width, rows) for a, b in ((1, 3), (1, 1), (1, 4), (4, 1))
        )
        others = 2 * kinds["norm"].time_s(rows * width) + 2 * kinds["activation"].time_s(rows * width)
        return linears + others + kinds["gelu"].time_s(4 * rows * width)

    @cached_property
    def _decode_glue_s(self) -> tuple[float, float]:
        """What a tiny language model takes beyond its operations: (once a pass, in each block)."""
        few, many = sorted(self.machine.need("decode", rest_s=0.0), key=lambda p: p.at["blocks"])
        at = few.at
        a, b = float(getattr(few, self.which)), float(getattr(many, self.which))
        block = (b - a) / (many.at["blocks"] - at["blocks"])
        operations = self._block_s(at["width"], 1.0) + self._kinds["decode"].time_s(at["heads"], at["cached"])
        return max(a - at["blocks"] * block, 0.0), max(float(block - operations), 0.0)

    # --- both ---------------------------------------------------------------------------------------------------------
    def pause_s(self, name: Literal["classify", "decode"], b: int) -> float:
        """Return how much longer a pass with b requests takes after a pause of a millisecond, in which others used the caches."""
        rested = [p for p in self.machine.need(name) if p.at["rest_s"] > 0 and p.at.get("batch", 1) <= b]
        last = max(rested, key=lambda p: (p.at.get("batch", 1), p.at.get("blocks", 0)))
        steady = self.one(name, **{**last.at, "rest_s": 0.0})
        return max(float(getattr(last, self.which)) - steady, 0.0)
