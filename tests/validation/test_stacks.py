"""Software of published sources: who ran what, and that every stack says a plan something and why."""

from __future__ import annotations

from collections import Counter

import pytest

from aiinfra_widgets.models.transformer import Plan
from aiinfra_widgets.validation.rows import read, shipped
from aiinfra_widgets.validation.stacks import NEWER, OLDER, ONE_RAIL, STACKS, stack_of
from aiinfra_widgets.validation.training_rows import expressed


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param("Narayanan et al. 2021 (SC21), arXiv:2104.04473", "megatron-2021", id="sc21"),
        pytest.param("Korthikanti et al. 2022, arXiv:2205.05198", "megatron-2021", id="korthikanti"),
        pytest.param("BigScience tr11-176B prequel (Jean Zay A100)", "megatron-deepspeed-2022", id="bloom"),
        pytest.param("Smith et al. 2022 MT-NLG, arXiv:2201.11990", "megatron-deepspeed-2022", id="mt-nlg"),
        pytest.param("MosaicML llm-foundry benchmarks", "fsdp-2023", id="llm-foundry"),
        pytest.param("Google MaxText README", "xla-tpu", id="maxtext"),
        pytest.param("NVIDIA Megatron-Bridge performance summary (25.09 Container)", "megatron-core-2024", id="bridge"),
    ],
)
def test_a_source_has_the_stack_that_it_ran(source, name):
    assert stack_of(source, newer=True).name == stack_of(source, newer=False).name == name


def test_an_unknown_source_has_the_stack_of_its_accelerators_years():
    assert stack_of("My lab", newer=True) is NEWER
    assert stack_of("My lab", newer=False) is OLDER
    assert (NEWER.name, OLDER.name) == ("megatron-core-2024", "fsdp-2023")


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.name)
def test_a_stack_is_fields_of_a_plan_and_a_reason(stack):
    Plan(**stack.plan)
    assert len(stack.why.split()) >= 4
    assert stack.sources


def test_words_of_sources_name_one_stack_each():
    words = Counter(word for stack in STACKS for word in stack.sources)
    assert max(words.values()) == 1
    for word in words:
        assert word in stack_of(word, newer=False).sources


def test_every_shipped_training_run_is_of_a_source_that_a_stack_names():
    jobs, _ = expressed(read(shipped()))
    unnamed = {j.row["source"] for j in jobs if not any(word in j.row["source"] for s in STACKS for word in s.sources)}
    assert not unnamed
    assert any(word in j.row["source"] for j in jobs for word in ONE_RAIL)
