"""What one rank holds of a net under a plan, from facts alone: the same parts and cuts that the engine makes with torch.

Tests hold it against the engine's own nets: the parts and their costs, and the numbers of every tensor parallel rank.

# T tokens of a sequence, t those of one context-parallel rank
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import ModelInputError
from ...models.stages import stages
from ...parallel.plan import Plan
from ...workloads.facts import Layer, WorkloadFacts

How = Literal["whole", "columns", "rows", "inside", "table"]
#: Of nets with parts, layers by the name behind the part's: those cut by columns, and those cut by rows that follow them.
BY_COLUMNS, BY_ROWS = {"qkv", "up", "conv1", "linear1"}, {"out", "down", "conv2", "linear2"}
SIZES = {"linear": ("in", "out"), "conv": ("in_channels", "out_channels")}


@dataclass(frozen=True, slots=True)
class CutLayer:
    """A layer, and what tensor parallelism makes of it.

    Attributes:
        layer: The whole one.
        how: By which side it is cut: its outputs, its inputs, everything in it (between the two), its rows as a table.
        units: Smallest runs that stay together (heads, channels, columns): ranks share these.
    """

    layer: Layer
    how: How = "whole"
    units: int = 1

    def local(self, plan: Plan) -> Layer:
        """Return what the fullest rank of `plan` computes: its share of the layer, and of the tokens."""
        tp = plan.grid.tp_size
        found = self.layer
        if self.how != "whole" and tp > 1:
            found = _SHARED[self.how](found, math.ceil(self.units / tp) / self.units)
        elif plan.sequence_parallel and found.kind in {"norm", "add"}:
            found = _tokens(found, 1 / tp)
        return _tokens(found, 1 / plan.grid.cp_size) if plan.grid.cp_size > 1 else found


@dataclass(frozen=True, slots=True)
class PartLayers:
    """A part of a net: its layers, and what stages are balanced by (flop per sample)."""

    name: str
    layers: tuple[CutLayer, ...]
    cost: float

    def local(self, plan: Plan) -> tuple[Layer, ...]:
        """Return the layers of the fullest rank."""
        return tuple(layer.local(plan) for layer in self.layers)

    @property
    def again(self) -> tuple[CutLayer, ...]:
        """Layers that recomputation runs once more: it stops as soon as it has what backward needs.

        Sums and changes of shape at the end keep nothing. A product keeps its input before it is computed, and a look-up its
        places; as the last in a part neither is computed again.
        """
        kept = list(self.layers)
        while kept and kept[-1].layer.kind in {"add", "flatten"}:
            kept.pop()
        while kept and kept[-1].layer.kind == "embedding":
            kept.pop()
        return tuple(kept[:-1] if kept and kept[-1].layer.kind in SIZES else kept)


def parts_of(facts: WorkloadFacts) -> tuple[PartLayers, ...]:
    """Return the parts of a workload's net; the loss stays out."""
    cut = list(_cut_row(facts.layers()) if facts.family == "layers" else _cut_parts(facts))
    if facts.family == "layers":
        return tuple(PartLayers(c.layer.name, (c,), _flop(c.layer) or float(c.layer.out_elements)) for c in cut)
    costs = facts.cost_of_parts()
    found: dict[str, list[CutLayer]] = {}
    for c in cut:
        found.setdefault(c.layer.name.partition(".")[0], []).append(c)
    return tuple(PartLayers(name, tuple(mine), _cost(facts, mine, costs[name])) for name, mine in found.items())


def loss_of(facts: WorkloadFacts, plan: Plan) -> Layer:
    """Return the loss as one rank computes it: of a vocabulary that is cut, of its tokens."""
    layer = facts.layers()[-1]
    cut = facts.task == "language"
    return CutLayer(layer, "inside" if cut else "whole", layer.dims["outputs"]).local(plan)


def stages_of(facts: WorkloadFacts, plan: Plan) -> list[tuple[PartLayers, ...]]:
    """Return the parts of every virtual stage, first to last.

    Raises:
        ModelInputError: More stages than parts, more ranks than a layer has runs to share, or a stage that ends inside a pair of
            layers that the tp ranks share.
    """
    parts, count = parts_of(facts), plan.grid.pp_size * plan.chunks
    if count > len(parts):
        raise ModelInputError(
            f"pp_size: got {plan.grid.pp_size} with {plan.chunks} chunks each; {facts.name} has {len(parts)} parts; "
            f"use at most {len(parts)} stages in all, or a deeper net"
        )
    tp = plan.grid.tp_size
    shared = [c for part in parts for c in part.layers if c.how != "whole"]
    if tp > 1 and not shared:
        raise ModelInputError(f"tp_size: got {tp}; no layer of {facts.name} can be cut; use 1")
    if shared and tp > (least := min(c.units for c in shared)):
        raise ModelInputError(
            f"tp_size: got {tp}; a layer of {facts.name} has {least} heads, channels or columns to share; use at most {least}"
        )
    found = [parts[cut] for cut in stages([part.cost for part in parts], count)]
    if tp > 1 and any(stage[-1].layers[-1].how in {"columns", "inside"} for stage in found[:-1]):
        raise ModelInputError(
            f"pp_size: got {plan.grid.pp_size} with tp_size {tp}; a stage of {facts.name} would end inside a pair of layers that "
            "the ranks share; use another number of stages, a deeper net, or tp_size 1"
        )
    return found


def _cut_row(layers: Sequence[Layer]) -> Iterator[CutLayer]:
    """Yield plain layers: trained ones in pairs, by columns and by rows; what is between them is cut too."""
    trained = [layer.name for layer in layers if layer.params]
    paired, units = trained[: len(trained) - len(trained) % 2], 0
    for layer in layers:
        if layer.kind == "loss":
            continue
        if layer.name in paired and paired.index(layer.name) % 2 == 0:
            units = layer.dims[SIZES[layer.kind][1]]
            yield CutLayer(layer, "columns", units)
        elif layer.name in paired:
            yield CutLayer(layer, "rows", units)
            units = 0
        else:
            yield CutLayer(layer, "inside", units) if units else CutLayer(layer)


def _cut_parts(facts: WorkloadFacts) -> Iterator[CutLayer]:
    """Yield the layers of a net with parts of its own."""
    heads = next((layer.dims["heads"] for layer in facts.layers() if layer.kind == "attention"), 0)
    units = 0
    for layer in facts.layers():
        if layer.kind == "loss":
            continue
        name, _, adapter = layer.name.partition(".")[2].partition(".")
        if layer.kind == "embedding" and layer.name != "embed.places":
            yield CutLayer(layer, "table", layer.dims["vocab"])
        elif layer.name == "head.logits":
            yield CutLayer(layer, "columns", layer.dims["out"])
        elif name in BY_COLUMNS:
            if not adapter:
                units = heads if name == "qkv" else layer.dims[SIZES[layer.kind][1]]
            yield CutLayer(layer) if adapter == "lora_a" else CutLayer(layer, "columns", units)
        elif name in BY_ROWS:
            yield CutLayer(layer) if adapter == "lora_b" else CutLayer(layer, "rows", units)
        else:
            inside = units and layer.kind not in {"norm", "add"} and not _behind_rows(layer.name, facts)
            yield CutLayer(layer, "inside", units) if inside else CutLayer(layer)


def _behind_rows(name: str, facts: WorkloadFacts) -> bool:
    """Return whether no pair of cut layers of the same part is open at this layer."""
    part = name.partition(".")[0]
    before = [layer.name for layer in facts.layers() if layer.name.partition(".")[0] == part]
    cut = [n.split(".")[1] for n in before[: before.index(name)] if "." in n]
    last = next((n for n in reversed(cut) if n in BY_COLUMNS | BY_ROWS), "")
    return last not in BY_COLUMNS


def _cost(facts: WorkloadFacts, layers: Sequence[CutLayer], counted: float) -> float:
    if facts.family == "language":  # blocks are alike: their forward arithmetic decides
        return sum(_flop(c.layer) for c in layers)
    tables = [c.layer.dims for c in layers if c.layer.kind == "embedding"]
    return counted + sum(float(d["tokens"] * d["width"]) for d in tables)


def _flop(layer: Layer) -> float:
    return float(layer.flop_forward_per_sample)


# --- a share of a layer ---------------------------------------------------------------------------------------------
def _columns(layer: Layer, part: float) -> Layer:
    dims = _scaled(layer, part, SIZES[layer.kind][1])
    params, fixed = round(layer.params * part), round(layer.fixed_params * part)
    return replace(
        layer, dims=dims, params=params, fixed_params=fixed, out_elements=_whole(layer.out_elements * part),
        flop_forward_per_sample=_whole(layer.flop_forward_per_sample * part),
    )  # fmt: skip


def _rows(layer: Layer, part: float) -> Layer:
    inputs, outputs = (layer.dims[side] for side in SIZES[layer.kind])
    weights = inputs * outputs * layer.dims.get("kernel", 1) ** 2
    bias = max(layer.params + layer.fixed_params - weights, 0)  # every rank holds it whole
    params = round((layer.params - bias) * part) + bias if layer.params else 0
    fixed = round((layer.fixed_params - bias) * part) + bias if layer.fixed_params else 0
    return replace(
        layer, dims=_scaled(layer, part, SIZES[layer.kind][0]), params=params, fixed_params=fixed,
        in_elements=_whole(layer.in_elements * part), kept_bytes=_whole(layer.kept_bytes * part),
        flop_forward_per_sample=_whole(layer.flop_forward_per_sample * part),
    )  # fmt: skip


def _inside(layer: Layer, part: float) -> Layer:
    dims = _scaled(layer, part, "heads", "width", "channels", "outputs", "elements")
    return replace(
        layer, dims=dims, in_elements=_whole(layer.in_elements * part), kept_bytes=_whole(layer.kept_bytes * part),
        out_elements=_whole(layer.out_elements * part) if layer.kind != "loss" else layer.out_elements,
        flop_forward_per_sample=_whole(layer.flop_forward_per_sample * part),
    )  # fmt: skip


def _table(layer: Layer, part: float) -> Layer:
    """Return a table of fewer rows; each rank looks up every token, and those of others are masked."""
    params, fixed = round(layer.params * part), round(layer.fixed_params * part)
    return replace(layer, dims=_scaled(layer, part, "vocab"), params=params, fixed_params=fixed)


_SHARED: dict[How, Any] = {"columns": _columns, "rows": _rows, "inside": _inside, "table": _table}


def _tokens(layer: Layer, part: float) -> Layer:
    """Return the layer over a part of every sequence. In attention, so many queries still look at all keys."""
    names = ("heads", "width") if layer.kind == "attention" else ("rows", "tokens")
    elements = _whole(layer.in_elements * part), _whole(layer.out_elements * part)
    return replace(
        layer, dims=_scaled(layer, part, *names), in_elements=elements[0], out_elements=elements[1],
        kept_bytes=_whole(layer.kept_bytes * part),
    )  # fmt: skip


def _scaled(layer: Layer, part: float, *names: str) -> dict[str, Any]:
    return {name: size * part if name in names else size for name, size in layer.dims.items()}


def _whole(number: float) -> int:
    return math.ceil(number - 1e-9)
