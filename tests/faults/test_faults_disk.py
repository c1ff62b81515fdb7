"""Disks that fill up, checkpoints that are cut off or damaged: what was there before stays readable."""

from __future__ import annotations

import os
import random

import killing
import numpy as np
import pytest

from aiinfra_widgets.errors import LabError, RunFormatError, StorageError
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.status import traceback_of

MIB = 2**20


@pytest.fixture
def run(tmp_path):
    """A run directory that nobody works in."""
    return layout.create(tmp_path / "runs", "training", spec_of("training", {}), found())


def state(tick):
    return {"state": np.full(1000, tick, np.float32)}


def test_a_disk_that_fills_up_ends_the_run_with_that_reason(owner, tmpfs):
    disk = tmpfs(MIB)
    session = owner.session(runs=disk)
    # A sample takes some 150 bytes, so a few thousand steps of two nodes fill the disk.
    reader = owner.start(2, nodes=2)
    now = owner.until(reader, lambda s: s.final, patience_s=120)
    assert now.state == "failed", now
    assert "No space left on device" in now.message
    assert "StorageError" in traceback_of(reader)
    assert now.next_step.startswith("resume at step ")
    ticks = reader.ticks["tick"].tolist()
    assert ticks == list(range(1, len(ticks) + 1))
    assert len(ticks) > 100
    kept = checkpoint.load(reader.run)
    assert 0 < kept[0]["tick"] <= max(r["tick"] for r in reader.latest().values())
    assert np.isfinite(kept[1]["parameters"]).all()
    assert not [p for p in reader.run.path.rglob("*.json") if not p.stat().st_size]
    owner.ranks_gone(session)


def test_a_disk_without_room_for_a_run_is_refused_before_anything_starts(owner, tmpfs):
    disk = tmpfs(32 * 1024)
    session = owner.session(runs=disk)
    with pytest.raises(StorageError, match="No space left on device; free some space or set AIINFRA_HOME"):
        session.launch("training", spec_of("training", {}), room=1)
    assert session.pool is None


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(run, tmpfs):
    disk = tmpfs(1 * MIB)
    small = RunDir(disk / "run")
    for folder in small.folders():
        folder.mkdir(parents=True)
    checkpoint.save(small, 1, {"nodes": 1}, 0, state(1))
    with pytest.raises(StorageError, match="cannot write a checkpoint"):
        checkpoint.save(small, 2, {"nodes": 1}, 0, {"state": np.zeros(MIB, np.float32)})
    assert checkpoint.load(small)[0]["tick"] == 1
    assert sorted(p.name for p in small.checkpoints.iterdir()) == ["0000000001", "LATEST"]
    checkpoint.save(small, 3, {"nodes": 1}, 0, state(3))
    assert checkpoint.load(small)[0]["tick"] == 3


def test_whenever_the_writer_is_killed_latest_is_whole(run):
    seen = killing.cut_off_writers(run, random.Random(20_261_120), 20)
    assert len(seen) > 10
    tick = seen[-1] + 1
    checkpoint.save(run, tick, {"nodes": 1}, 0, state(tick))
    left = [p.name for p in run.checkpoints.iterdir()]
    assert not [name for name in left if name.endswith(".part")]  # what was cut off is gone at the next start
    assert len(left) <= 3


def test_the_same_tick_twice_never_touches_the_first(run):
    first = checkpoint.save(run, 7, {"nodes": 1}, 0, state(7))
    before = (first / "state-00000-of-00001.safetensors").stat().st_ino
    second = checkpoint.save(run, 7, {"nodes": 2}, 0, state(7))
    assert second != first
    assert (first / "state-00000-of-00001.safetensors").stat().st_ino == before
    assert checkpoint.load(run)[0]["spec"] == {"nodes": 2}
    third = checkpoint.save(run, 8, {"nodes": 1}, 0, state(8))
    assert sorted(p for p in run.checkpoints.iterdir() if p.is_dir()) == sorted([second, third])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda c: (c / "0000000002/state-00000-of-00001.safetensors").write_bytes(b"x"),
            "its checksum is not the one written",
        ),
        (
            lambda c: os.truncate(c / "0000000002/state-00000-of-00001.safetensors", 50),
            "its checksum is not the one written",
        ),
        (lambda c: (c / "0000000002/state-00000-of-00001.safetensors").unlink(), "No such file"),
        (lambda c: (c / "0000000002/meta.json").write_text("{"), "damaged"),
        (lambda c: (c / "0000000002/meta.json").write_text("[]"), "damaged"),
        (lambda c: (c / "LATEST").write_text("5"), "No such file"),
        (lambda c: (c / "LATEST").write_text("../../../etc"), "no name of a checkpoint"),
        (lambda c: (c / "LATEST").write_bytes(b"\xff"), "damaged"),
        (lambda c: (c / "LATEST").write_text(""), "no name of a checkpoint"),
    ],
)
def test_a_damaged_checkpoint_says_so_and_names_the_way_back(run, damage, says):
    for tick in (1, 2):
        checkpoint.save(run, tick, {"nodes": 1}, 0, state(tick))
    damage(run.checkpoints)
    with pytest.raises(RunFormatError, match="is damaged: ") as error:
        checkpoint.load(run)
    assert says in str(error.value)
    assert "to go back, write 000000000" in str(error.value)
    (run.checkpoints / "LATEST").write_text("0000000001")  # as it says
    assert checkpoint.load(run)[0]["tick"] == 1


def test_resuming_from_a_damaged_checkpoint_fails_with_its_name(owner):
    reader = owner.start(2, nodes=1)
    session = owner.sessions[-1]
    session.stop(reader, wait_s=30)
    state_file = (
        next(reader.run.checkpoints.glob((reader.run.checkpoints / "LATEST").read_text()))
        / "state-00000-of-00001.safetensors"
    )
    os.truncate(state_file, 100)
    again = session.resume(reader.run, room=2)
    now = owner.ended(again)
    assert now.state == "failed"
    assert f"checkpoint {state_file.parent} is damaged" in now.message
    assert "Traceback" in traceback_of(again)


def test_no_pickle_is_ever_read(run):
    import pickle

    checkpoint.save(run, 1, {"nodes": 1}, 0, state(1))
    planted = run.checkpoints / "0000000001" / "state-00000-of-00001.safetensors"
    planted.write_bytes(pickle.dumps({"state": 1}))
    with pytest.raises(LabError):
        checkpoint.load(run)
