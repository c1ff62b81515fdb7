"""Training of transformers at scale: shape, plan and machine in, time and memory out; one call for one plan or a million."""

from __future__ import annotations

from .architecture import Transformer
from .cluster import Accelerator, Cluster
from .parameters import PARAMETERS, Parameters
from .plan import Plan
from .step import PARTS, StepPrediction, check_plan, predict_step

__all__ = [
    "PARAMETERS",
    "PARTS",
    "Accelerator",
    "Cluster",
    "Parameters",
    "Plan",
    "StepPrediction",
    "Transformer",
    "check_plan",
    "predict_step",
]
