"""Checkpoints by rank: any number of ranks reads what any other wrote, and whoever is killed at whatever moment, LATEST is whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time

import cutting
import killing
import numpy as np
import pytest
from safetensors.numpy import save_file

from aiinfra_widgets.errors import RunFormatError
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.ranks import checkpoint, shards
from aiinfra_widgets.ranks.checkpoint import CheckpointWriter, Head
from aiinfra_widgets.runs import layout

SEED = 20_261_122


@pytest.fixture
def run(tmp_path):
    """A run directory that nobody works in."""
    return layout.create(tmp_path / "runs", "training", spec_of("training", {}), found())


def state(tick=0):
    """Arrays of several types and shapes, some with fewer numbers than there are writers."""
    return {
        "matrix": np.arange(35.0).reshape(5, 7) + tick,
        "vector": np.arange(1001, dtype=np.float32) * 3,
        "few": np.array([tick, -tick]),
        "one": np.array(tick, np.int32),
        "none": np.zeros((0, 4), np.float32),
    }


def same(ours, theirs):
    """Whether two sets of arrays are equal to the bit."""
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        assert ours[name].tobytes() == array.tobytes(), name
    return True


class Writers:
    """The writers of W nodes in one process; `alive` is who lives."""

    def __init__(self, run, world):
        self.run, self.events, self.alive = run, [], list(range(10, 10 + world))
        self.owners = list(self.alive)
        self.of = {
            node: CheckpointWriter(run, lambda kind, **data: self.events.append((kind, data)), node, lambda: self.alive)
            for node in self.owners
        }
        self.leader = self.of[self.owners[0]]

    def write(self, tick, who=None, keep=2):
        """Let `who` (all, if not given) write their part of the state of `tick`, the leader last."""
        number = self.leader.begin(tick)
        for node in reversed(self.owners if who is None else who):
            self.of[node].write(number, Head(tick, {"nodes": 1}, 4, keep), state(tick), self.owners)

    def wait(self):
        """Wait for the followers, then for the leader."""
        return [self.of[node].wait() for node in reversed(self.owners)][-1]


# --- the format -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("world", [1, 2, 3, 4, 7, 36])
def test_slices_are_disjoint_and_together_the_whole(world):
    pieces = [shards.slices(state(5), rank, world) for rank in range(world)]
    assert same(shards.join(pieces, shards.shapes(state(5))), state(5))
    sizes = [piece["vector"].size for piece in pieces]
    assert sum(sizes) == 1001
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 2, 5])
def test_what_several_writers_wrote_is_read_whole(run, world):
    writers = Writers(run, world)
    writers.write(7)
    assert writers.wait()
    meta, arrays = checkpoint.load(run)
    assert same(arrays, state(7))
    assert meta == {"tick": 7, "spec": {"nodes": 1}, "segment": 4, "world_size": world}
    arrays["matrix"] += 1  # they are the caller's own
    folder = run.checkpoints / "0000000007"
    names = [f"state-{rank:05d}-of-{world:05d}.safetensors" for rank in range(world)]
    assert sorted(p.name for p in folder.iterdir()) == ["meta.json", *names]
    [(kind, told)] = writers.events
    assert (kind, told["tick"], told["shards"]) == ("checkpoint", 7, world)
    assert told["bytes"] == sum((folder / name).stat().st_size for name in names)
    assert told["write_time_s"] > 0 <= told["cost_s"]


def test_a_writer_copies_before_it_returns(run, monkeypatch):
    writers, arrays, changed, real = Writers(run, 1), state(3), threading.Event(), shards.write

    def late(*about):
        assert changed.wait(30)
        real(*about)

    monkeypatch.setattr(shards, "write", late)
    writers.leader.write(writers.leader.begin(3), Head(3, {"nodes": 1}, 0), arrays, writers.owners)
    for array in arrays.values():
        array.fill(0)
    changed.set()
    writers.leader.wait()
    assert same(checkpoint.load(run)[1], state(3))


def test_a_checkpoint_of_an_earlier_release_is_read(run):
    folder = run.checkpoints / "0000000009"
    folder.mkdir()
    save_file(state(9), folder / "state.safetensors")
    digest = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps({"tick": 9, "spec": {"nodes": 3}, "segment": 2, "sha256": digest}))
    (run.checkpoints / "LATEST").write_text(folder.name)
    meta, arrays = checkpoint.load(run)
    assert same(arrays, state(9))
    assert (meta["tick"], meta["spec"], meta["segment"]) == (9, {"nodes": 3}, 2)
    os.truncate(folder / "state.safetensors", 60)
    with pytest.raises(RunFormatError, match=r"state\.safetensors: its checksum is not the one written"):
        checkpoint.load(run)


def flip(path):
    """Change one bit of a file's last byte."""
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)


def edit(folder, **changes):
    """Change meta.json."""
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **changes}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: flip(c / "state-00001-of-00003.safetensors"), "state-00001-of-00003.safetensors: its checksum"),
        (lambda c: (c / "state-00002-of-00003.safetensors").unlink(), "state-00002-of-00003.safetensors"),
        (lambda c: edit(c, shards=[]), "damaged"),
        (lambda c: edit(c, shards=json.loads((c / "meta.json").read_text())["shards"][:2]), "of-00002"),
        (lambda c: edit(c, arrays={"matrix": [6, 7]}), "damaged"),
        (lambda c: edit(c, arrays={"other": [1]}), "other"),
        (lambda c: edit(c, arrays=3), "damaged"),
        (lambda c: edit(c, format=3), "meta.json is of format 3; this release reads up to 2"),
    ],
)
def test_a_damaged_or_missing_shard_is_named_with_the_way_back(run, damage, says):
    writers = Writers(run, 3)
    for tick in (1, 2):
        writers.write(tick)
        assert writers.wait()
    damage(run.checkpoints / "0000000002")
    with pytest.raises(RunFormatError, match="is damaged: ") as error:
        checkpoint.load(run)
    assert says in str(error.value)
    assert "to go back, write 0000000001 into " in str(error.value)
    (run.checkpoints / "LATEST").write_text("0000000001")  # as it says
    assert same(checkpoint.load(run)[1], state(1))


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_last_ones_are_kept(run, keep):
    writers = Writers(run, 2)
    for tick in range(1, 8):
        writers.write(tick, keep=keep)
        assert writers.wait()
        kept = sorted(int(p.name) for p in run.checkpoints.glob("[0-9]*"))
        assert kept == list(range(max(1, tick - keep + 1), tick + 1))
    alone = checkpoint.save(run, 8, {"nodes": 1}, 0, state(8), keep=keep)
    assert len([p for p in run.checkpoints.iterdir() if p.is_dir()]) == keep
    assert alone.is_dir()


# --- writers that do not come -----------------------------------------------------------------------------------
def test_who_died_before_its_part_was_written_makes_the_others_give_it_up(run):
    writers = Writers(run, 3)
    writers.write(1)
    assert writers.wait()
    writers.write(2, who=[10, 11])
    writers.alive.remove(12)
    assert not writers.wait()  # nobody waits for ever
    [_, (kind, told)] = writers.events
    assert (kind, told["tick"], told["missing"]) == ("checkpoint-given-up", 2, [12])
    assert told["reason"] == "node 12 died before its part was written"
    assert same(checkpoint.load(run)[1], state(1))
    assert not list(run.checkpoints.glob(".*.part"))
    writers.owners.remove(12)
    writers.write(3)
    assert writers.wait()
    assert same(checkpoint.load(run)[1], state(3))


def test_who_died_after_its_part_was_written_is_not_missed(run):
    writers, head = Writers(run, 3), Head(2, {"nodes": 1}, 0)
    number = writers.leader.begin(2)
    writers.of[12].write(number, head, state(2), writers.owners)
    writers.of[12].wait()
    writers.alive.remove(12)
    threading.Timer(0.3, writers.of[11].write, (number, head, state(2), writers.owners)).start()
    writers.leader.write(number, head, state(2), writers.owners)
    assert writers.leader.wait()  # it saw the death, and waited for the one who lives
    assert same(checkpoint.load(run)[1], state(2))


def test_the_heir_of_a_dead_leader_gives_its_checkpoint_up(run):
    writers = Writers(run, 3)
    writers.write(5, who=[11, 12])
    for node in (11, 12):
        writers.of[node].wait()
    writers.of[11].lost([10], heir=True)
    assert writers.events == [
        ("checkpoint-given-up", {"tick": 5, "missing": [], "reason": "the node that led it died"})
    ]
    assert not list(run.checkpoints.glob(".*"))
    assert checkpoint.load(run) is None


def test_who_writes_on_in_a_folder_that_was_given_up_says_nothing(run):
    writers = Writers(run, 2)
    number = writers.leader.begin(1)
    writers.leader.lost([], heir=True)
    writers.of[11].write(number, Head(1, {"nodes": 1}, 0), state(1), writers.owners)
    writers.of[11].wait()  # raises nothing
    writers.write(2)
    assert writers.wait()
    assert same(checkpoint.load(run)[1], state(2))


def test_the_name_of_what_is_given_up_goes_before_its_files(run, monkeypatch):
    """Who was writing one of the files took its removal for a disk that fails, where the folder was still there."""
    writers, seen, real = Writers(run, 2), [], checkpoint.shutil.rmtree
    number = writers.leader.begin(1)
    (part,) = run.checkpoints.glob(".*.part")
    writers.of[11].write(number, Head(1, {"nodes": 1}, 4), state(1), writers.owners)
    writers.of[11].wait()

    def looked(folder, **options):
        seen.append(part.exists())
        real(folder, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", looked)
    writers.leader.lost([], heir=True)
    assert seen
    assert not any(seen)
    assert not list(run.checkpoints.glob(".*"))


def test_a_checkpoint_that_nobody_writes_any_more_is_given_up(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "PATIENCE_S", 0.2)
    writers = Writers(run, 2)
    writers.write(1, who=[10])  # the other one lives, and does not come
    assert not writers.leader.wait()
    assert "node 11 wrote nothing for" in writers.events[0][1]["reason"]


def test_the_next_checkpoint_waits_for_the_one_before(run):
    writers = Writers(run, 2)
    writers.write(1, who=[10])
    late = threading.Timer(0.3, lambda: None)
    begun_s = time.monotonic()
    number = next(run.checkpoints.glob(".*.part")).name.split(".")[2]
    late.function = lambda: writers.of[11].write(int(number, 16), Head(1, {"nodes": 1}, 4), state(1), writers.owners)
    late.start()
    writers.write(2)
    assert time.monotonic() - begun_s >= 0.3
    assert [told["tick"] for kind, told in writers.events if kind == "checkpoint"][:1] == [1]
    writers.wait()
    assert same(checkpoint.load(run)[1], state(2))


# --- real ranks -------------------------------------------------------------------------------------------------
def start(owner, size, room, **values):
    """Start a counter and wait for its first steps."""
    cutting.known()
    session = owner.session()
    spec = spec_of("counter", {"nodes": size, "checkpoint_every_s": 0.0, **values})
    reader = session.launch("counter", spec, room=room)
    killing.wait(reader, lambda: killing.reached(reader) >= 3, "the first steps")
    return session, reader


def test_what_four_ranks_wrote_is_loaded_by_two_and_by_one(owner):
    session, reader = start(owner, 4, 4)
    for size in (2, 1):
        ended = session.stop(reader, wait_s=killing.PATIENCE_S)
        assert ended.state == "stopped", ended
        meta = cutting.loaded(reader.run, 300_001)
        assert meta["world_size"] == 4
        folder = reader.run.checkpoints / (reader.run.checkpoints / "LATEST").read_text()
        assert len(list(folder.glob("state-*-of-00004.safetensors"))) == 4
        told = reader.kind("checkpoint")[-1]
        assert (told["tick"], told["shards"]) == (meta["tick"], 4)
        assert told["bytes"] > 300_001 * 8
        edit(folder, spec={**meta["spec"], "nodes": size})  # as a relaunch on fewer ranks writes it
        reader = session.resume(reader.run, room=4)
        killing.wait(reader, lambda r=reader, t=meta["tick"]: killing.reached(r) > t + 2, "the resumed run")
        session.stop(reader, wait_s=killing.PATIENCE_S)
        assert cutting.loaded(reader.run, 300_001)["tick"] >= meta["tick"] + 2  # what was loaded was exactly that step
        if size > 1:
            reader = session.resume(reader.run, room=4)
            session.ask(reader, {"nodes": 4})
            killing.wait(reader, lambda r=reader: len(r.kind("segment")[-1]["members"]) == 4, "four ranks")


def test_a_programme_that_is_not_alike_everywhere_has_one_writer(owner):
    session, reader = start(owner, 3, 3, shards=False)
    session.stop(reader, wait_s=killing.PATIENCE_S)
    assert cutting.loaded(reader.run, 300_001)["world_size"] == 1
    assert reader.kind("checkpoint")[-1]["shards"] == 1


def test_a_rank_that_alone_has_no_room_is_told_by_the_leader_with_its_number(owner):
    cutting.known()
    spec = spec_of("counter", {"nodes": 3, "checkpoint_every_s": 0.05, "narrow": 2})
    reader = owner.session().launch("counter", spec, room=3)
    now = owner.ended(reader)
    assert now.state == "failed", now
    assert now.message.startswith("node 0 "), now  # the one that leads says it
    assert "StorageError: checkpoint not written: rank 2 (node 2) cannot write its part: " in now.message, now
    assert "File too large" in now.message, now
    assert checkpoint.load(reader.run) is None


@pytest.mark.parametrize("times", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_cuts_leave_the_newest_checkpoint_whole(owner, tmp_path, times):
    cuts = cutting.cut_off(tmp_path / "cut", random.Random(SEED), times)
    assert len(cuts) == times
    assert sum(cut.under_way for cut in cuts) >= times // 8  # the kills came while something was written
    assert {cut.killed for cut in cuts} >= {1}
    assert cuts[-1].tick > cuts[0].tick
