"""A node that holds a share of the state dies: with copies in its neighbour's memory the others go on, and lose no number."""

from __future__ import annotations

import os
import random
import signal

import dying
import pytest

from aiinfra_widgets.launch.session import spec_of

#: float64, so that another order of additions shows in the tenth digit only.
WORK = {
    "workload": "synthetic", "width": 64, "depth": 4, "precision": "float64", "checkpoint_every_s": 0.0, "trace_every": 0,
    "redundancy": "neighbour", "mirror_every": 4,
}  # fmt: skip
PIPELINE = {"pp_size": 2, "num_microbatches": 2}
CLOSE = {"rel": 1e-8, "abs": 1e-9}


def losses(reader):
    """The loss by tick; of a tick that was done twice, both."""
    ticks = reader.ticks
    found: dict[int, list[float]] = {}
    for tick, loss in zip(ticks["tick"], ticks["loss"], strict=True):
        found.setdefault(int(tick), []).append(float(loss))
    return found


def alone(owner, ticks, **changes):
    """The losses of one node that nobody kills."""
    values = {
        **WORK,
        "global_batch": 64,
        "evaluate_every": 0,
        "redundancy": "checkpoint",
        "nodes": 1,
        "steps": ticks,
        **changes,
    }
    reader = owner.session().launch("training", spec_of("training", values), room=1)
    assert owner.ended(reader).state == "done"
    return losses(reader)


def kill(owner, reader, victim, more=10):
    """Kill a node some ticks from now, wait until the others go on, and return the event that tells of it."""
    owner.ticked(reader, max(losses(reader)) + more)
    os.kill(owner.pid(reader, victim), signal.SIGKILL)
    owner.until(reader, lambda s: reader.kind("rank-lost"))
    [lost] = reader.kind("rank-lost")
    owner.ticked(reader, lost["tick"] + 20)
    return lost


@pytest.mark.parametrize(
    ("plan", "nodes", "left"),
    [
        ({"zero_stage": 3}, 3, 2),
        pytest.param({"tp_size": 2}, 4, 2, marks=pytest.mark.slow),
        pytest.param(PIPELINE, 4, 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_others_go_on_with_the_same_numbers(owner, plan, nodes, left):
    chance = random.Random(str(plan))
    reader = owner.start(nodes, nodes=nodes, **{**WORK, **plan})
    victim = chance.randrange(nodes)
    lost = kill(owner, reader, victim, chance.randrange(1, 20))
    assert (lost["lost"], lost["nodes"]) == ([victim], left)
    assert 0 <= lost["redone"] < WORK["mirror_every"]
    assert lost["tick"] % WORK["mirror_every"] == 0
    segments = reader.segments()
    assert [(s.spec.nodes, s.cause) for s in segments] == [(nodes, "start"), (left, "rank-lost")]
    assert segments[1].first_tick == lost["tick"]
    assert segments[1].spec == segments[0].spec.changed({"nodes": left})
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"
    assert reader.run.incarnations() == 1
    found = losses(reader)
    assert set(range(lost["tick"] + 1, max(found) + 1)) <= set(found)
    undisturbed = alone(owner, max(found))
    for tick, several in found.items():
        assert several == pytest.approx(undisturbed[tick] * len(several), **CLOSE), tick


def test_a_spare_node_takes_the_place_where_the_others_could_not_go_on(owner):
    reader = owner.start(3, nodes=2, **{**WORK, "tp_size": 2})
    lost = kill(owner, reader, 0)
    assert (lost["nodes"], lost["lost"]) == (2, [0])
    now = owner.until(reader, lambda s: s.state == "running")
    assert now.message == f"node 0 died; node 2 took its place at step {lost['tick']}"
    assert reader.kind("segment")[-1]["members"] == [1, 2]
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"


@pytest.mark.parametrize(
    ("start", "change", "nodes", "place"),
    [
        ({"precision": "float32"}, {"zero_stage": 1}, 3, "before"),  # from the flat engine, which keeps no copies
        pytest.param({}, {"tp_size": 2}, 4, "middle", marks=pytest.mark.slow),
        # Who leaves takes its copies along.
        pytest.param({"zero_stage": 3}, {"nodes": 3}, 4, "middle", marks=pytest.mark.slow),
    ],
    ids=["plain-to-zero", "plain-to-tensor", "resized"],
)
def test_a_death_between_a_change_and_its_first_copy_costs_no_step(
    owner, tmp_path, monkeypatch, start, change, nodes, place
):
    dying.arm(tmp_path / "dying", monkeypatch, 1, place)
    reader = owner.start(nodes, nodes=nodes, **{**WORK, **start, "mirror_every": 1000})
    owner.sessions[-1].ask(reader, change)
    owner.until(reader, lambda s: reader.kind("rank-lost"))
    [lost] = reader.kind("rank-lost")
    assert (lost["lost"], lost["redone"]) == ([1], 0)
    owner.until(reader, lambda s: reader.kind("applied") or reader.kind("refused"))
    owner.ticked(reader, lost["tick"] + 20)
    assert {**start, **change}.items() <= reader.segments()[-1].spec.model_dump().items()
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"
    found, precision = losses(reader), {"precision": start.get("precision", "float64")}
    undisturbed = alone(owner, max(found), **precision)
    if precision["precision"] == "float64":
        for tick, several in found.items():
            assert several == pytest.approx(undisturbed[tick] * len(several), **CLOSE), tick
        return
    # In float32 another order of additions shows more with every tick; that the death adds nothing shows around it.
    around = range(lost["tick"], lost["tick"] + 20)
    apart = [loss / undisturbed[tick][0] for tick in around for loss in found[tick]]
    assert apart == pytest.approx([apart[0]] * len(apart), rel=1e-2)


def test_neighbours_that_die_together_take_the_state_along(owner):
    reader = owner.start(4, nodes=4, **{**WORK, "zero_stage": 1, "checkpoint_every_s": 0.2})
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    pids = [owner.pid(reader, node) for node in (1, 2)]
    for pid in pids:  # stopped first, so that nobody mends the state between the two deaths
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "neighbours died together" in now.message
    assert now.next_step.startswith("resume at step ")
    again = owner.sessions[-1].resume(reader.run, room=4)
    owner.until(again, lambda s: len(again.kind("segment")) == 2)
    owner.ticked(again, again.kind("segment")[-1]["tick"] + 20)
    assert owner.sessions[-1].stop(again, wait_s=30).state == "stopped"


def test_a_plan_that_those_who_are_left_cannot_carry_out_ends_the_run(owner):
    reader = owner.start(2, nodes=2, **{**WORK, "pp_size": 2, "num_microbatches": 2})
    os.kill(owner.pid(reader, 1), signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "the plan of 2 nodes cannot be carried out by the 1 that are left" in now.message


def test_deaths_in_the_middle_of_a_copy_and_again_until_one_is_left(owner):
    """Copies of 0.5 M numbers at every step: most of the time is theirs. One node after another dies."""
    reader = owner.start(4, nodes=4, **{**WORK, "zero_stage": 1, "width": 512, "mirror_every": 1, "global_batch": 8})
    chance, alive = random.Random(7), [0, 1, 2, 3]
    for left in (3, 2, 1):
        victim = chance.choice(alive)
        alive.remove(victim)
        os.kill(owner.pid(reader, victim), signal.SIGKILL)
        owner.until(reader, lambda s, left=left: len(reader.kind("segment")) == 5 - left)
        lost = reader.kind("rank-lost")[-1]
        assert (lost["lost"], lost["nodes"], lost["redone"]) == ([victim], left, 0)
        owner.ticked(reader, lost["tick"] + 3)
    assert reader.kind("segment")[-1]["members"] == alive
    assert reader.spec.redundancy == "checkpoint"  # the last one has no neighbour
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"
