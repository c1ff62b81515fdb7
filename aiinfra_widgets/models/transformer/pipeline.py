"""Pipeline stages: which one is the slowest, and how long the others stand idle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number, need
from .architecture import Transformer
from .plan import Plan

#: Idle time of a schedule in units of (stages - 1) / (chunks * micro-batches). Zero-bubble (H1) fills two thirds with weight gradients.
IDLE = {"gpipe": 1.0, "1f1b": 1.0, "interleaved": 1.0, "zero_bubble": 1 / 3}


@dataclass(frozen=True, slots=True)
class SlowestStage:
    """The stage that all others wait for.

    Attributes:
        layers: Its layers.
        heads: 1 where it also computes the output projection and the loss, else 0.
        embeddings: 1 where it also looks tokens up, else 0.
    """

    layers: Number
    heads: Number
    embeddings: Number


def bubble_frac(pp_size: Number, num_microbatches: Number, interleave: Number = 1, schedule: str = "1f1b") -> Number:
    """Return the idle time of a pipeline against its busy time.

    Args:
        pp_size: Stages p.
        num_microbatches: Micro-batches m of a step.
        interleave: Model chunks v per stage.
        schedule: "gpipe" and "1f1b": (p-1)/m; "interleaved": (p-1)/(v m); "zero_bubble": a third of 1f1b.

    Raises:
        ModelInputError: Less than one stage, micro-batch or chunk.

    Valid when: stages take equal time, forward and backward in the ratio 1 : 2.
    Off by: too low where stages differ (then the slowest one sets the pace).
    Source: Narayanan et al. 2021 (SC21); Qi et al. 2023 (zero bubble, H1).
    """
    need("pp_size", pp_size, 1, whole=True)
    need("num_microbatches", num_microbatches, 1)
    need("interleave", interleave, 1, whole=True)
    return IDLE[schedule] * (pp_size - 1) / (num_microbatches * interleave)


def plan_bubble_frac(plan: Plan) -> Number:
    """The same, for each plan by its own schedule."""
    idle = np.where(plan.is_schedule("zero_bubble"), IDLE["zero_bubble"], 1.0)
    return idle * (plan.pp_size - 1) / (plan.num_microbatches * plan.interleave)


def slowest_stage(model: Transformer, plan: Plan, layer_s: Number, head_s: Number, embedding_s: Number) -> SlowestStage:
    """Return the stage that takes longest.

    Layers are dealt evenly. Where they do not divide but two more would, embedding and output take a layer's place each
    (as BLOOM's stages); else the last stage has the fewest layers.

    Args:
        model, plan: What is split into how many stages.
        layer_s, head_s, embedding_s: Time per micro-batch of one layer, of output projection and loss, of the embedding.
    """
    p, layers = np.asarray(plan.pp_size), np.asarray(model.layers)
    most = np.ceil(layers / p)
    slots = (layers % p != 0) & ((layers + 2) % p == 0) & (p > 1)
    most = np.where(slots, (layers + 2) / p, most)
    last = np.where(slots, most - 1, layers - most * (p - 1))
    last = np.maximum(last, 0)
    at_end = (last * layer_s + head_s > most * layer_s) | (p == 1)
    return SlowestStage(np.where(at_end, last, most), np.where(at_end, 1, 0), np.where(p == 1, 1, 0) + 0 * embedding_s)
