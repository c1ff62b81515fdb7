"""What software a published source ran: facts that its rows do not print and a prediction needs.

Each entry says why. Nothing here is fitted; a source that is not listed has the stack of its accelerator's years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Stack:
    """One generation of training software.

    Attributes:
        name: What it is called here.
        sources: Words of which the row's source contains one.
        plan: Fields of `Plan` that all its runs share.
        why: How that is known.
    """

    name: str
    sources: tuple[str, ...]
    plan: Mapping[str, Any]
    why: str


STACKS = (
    Stack(
        "megatron-deepspeed-2022",
        ("BigScience", "BLOOM", "Smith et al.", "MT-NLG", "Turing-NLG"),
        MappingProxyType({"flash_attention": False, "split_p2p": False, "multi_rail": False}),
        "unfused attention; DeepSpeed's pipeline sends whole activations from every tensor-parallel rank",
    ),
    Stack(
        "megatron-2021",
        ("Narayanan", "Korthikanti", "SC21", "Shoeybi"),
        MappingProxyType({"flash_attention": False}),
        "unfused attention, no overlap; scatter/gather between stages (SC21, section 4.1)",
    ),
    Stack(
        "megatron-core-2024",
        ("NeMo", "Megatron-Bridge", "Megatron-Core", "Megatron Core", "Megatron-LM"),
        MappingProxyType(
            {
                "flash_attention": True,
                "attention_kernel": "flash_native",
                "overlap_tensor": True,
                "overlap_pipeline": True,
                "overlap_grad_reduce": True,
                "sequence_parallel": True,
            }
        ),
        "its performance guides turn on fused attention, sequence parallelism and all three overlaps",
    ),
    Stack(
        "fsdp-2023",
        ("llm-foundry", "torchtitan", "nanotron", "PyTorch"),
        MappingProxyType({"flash_attention": True, "overlap_grad_reduce": True}),
        "FlashAttention 1 or 2; gathers overlapped with arithmetic",
    ),
    Stack(
        "xla-tpu",
        ("MaxText", "PaLM", "JAX"),
        MappingProxyType(
            {
                "flash_attention": True,
                "compiled": True,
                "zero_stage": 3,
                "overlap_tensor": True,
                "overlap_grad_reduce": True,
            }
        ),
        "weights sharded over one slice, gathers overlapped by the compiler, gradients reduced between slices",
    ),
    Stack(
        "deep-learning-examples",
        ("DeepLearningExamples", "DeepSpeed", "MLPerf"),
        MappingProxyType({"flash_attention": False, "overlap_grad_reduce": True}),
        "unfused attention; gradients reduced during the backward pass",
    ),
)
#: For a source that no entry names.
OLDER, NEWER = STACKS[3], STACKS[2]
#: ZeRO-3 before NCCL used all network cards of a node in one ring (2022): the SC21 comparison ran it so.
ONE_RAIL = ("Narayanan", "SC21")


def stack_of(source: str, newer: bool) -> Stack:
    """Return the stack of a source; an unknown one has that of its accelerator's years (`newer`: Hopper and after)."""
    for stack in STACKS:
        if any(word in source for word in stack.sources):
            return stack
    return NEWER if newer else OLDER
