"""The pure view of a net against the engine's own parts: names, costs, and what every tensor parallel rank holds."""

from __future__ import annotations

import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.experiments.training.predict_net import parts_of, stages_of
from aiinfra_widgets.models.rank_grid import RankGrid
from aiinfra_widgets.parallel.plan import Plan
from aiinfra_widgets.workloads import catalog, nets
from aiinfra_widgets.workloads.axes import Axes
from aiinfra_widgets.workloads.parts import stages

#: Those that can be built in a test: the larger language models differ in their sizes only.
SMALL = [name for name in catalog.names() if catalog.facts(name).params < 20e6]


class Last(Axes):
    """The last of `tp_size` ranks: its shares are never the smaller ones. Nothing is computed with it."""

    def __init__(self, tp_size: int) -> None:
        self.tp_size, self.tp_rank = tp_size, tp_size - 1


def trained(part, axes: Axes) -> int:
    return sum(p.numel() for p in part.build(axes).parameters() if p.requires_grad)


@pytest.mark.parametrize("name", SMALL)
def test_parts_and_costs_are_those_of_the_net(name):
    facts = catalog.facts(name)
    assert [(p.name, p.cost) for p in parts_of(facts)] == [(p.name, p.cost) for p in nets.net_of(facts).parts]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("tp_size", [1, 2, 3])
def test_every_part_of_the_fullest_rank_has_the_numbers_of_the_net(name, tp_size):
    facts = catalog.facts(name)
    plan, net = Plan(RankGrid(tp_size=tp_size)), nets.net_of(facts)
    if net.heads < tp_size or (net.why_not_tp and tp_size > 1):
        with pytest.raises(ModelInputError, match="tp_size: got"):
            stages_of(facts, plan)
        return
    ours = {p.name: sum(layer.params for layer in p.local(plan)) for p in parts_of(facts)}
    assert ours == {p.name: trained(p, Last(tp_size)) for p in net.parts}


@pytest.mark.parametrize("name", SMALL)
def test_stages_are_cut_where_the_engine_cuts_them(name):
    facts = catalog.facts(name)
    parts = nets.net_of(facts).parts
    for pp_size in range(1, min(4, len(parts)) + 1):
        plan = Plan(RankGrid(pp_size=pp_size), num_microbatches=4)
        ours = [[p.name for p in stage] for stage in stages_of(facts, plan)]
        assert ours == [[p.name for p in parts[cut]] for cut in stages([p.cost for p in parts], pp_size)]
    with pytest.raises(ModelInputError, match=f"{len(parts)} parts"):
        stages_of(facts, Plan(RankGrid(pp_size=len(parts) + 1), num_microbatches=4))


def test_a_stage_that_ends_inside_a_shared_pair_is_refused():
    """What leaves the first of the two is only a part of the numbers, and the next stage would wait for all of them."""
    plan = Plan(RankGrid(tp_size=2, pp_size=2), num_microbatches=2)
    with pytest.raises(ModelInputError, match="inside a pair"):
        stages_of(catalog.facts("digits-cnn"), plan)
    assert len(stages_of(catalog.facts("digits-resnet"), plan)) == 2
