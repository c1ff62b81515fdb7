"""The machine around a run: a disk that turns read-only or slow, a clock that is set, processes that run out. By real means."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import LONG, of_this_test, wait_until

from aiinfra_widgets.errors import StorageError
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.reader import RunReader

#: The issue's: a cause is named within so many seconds.
NAMED_S = 5.0


# --- a disk that turns read-only --------------------------------------------------------------------------------------
class Disk:
    """A file system of its own, which an error of its device turns read-only: the kernel's own switch for testing that."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder

    def mount(self) -> None:
        """Attach it, as an administrator does."""
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder)], check=True)

    def fail(self) -> None:
        """Report an error of the device to the file system; what it had in memory for longer than some seconds is on disk by then."""
        subprocess.run(["sync", "-f", str(self.folder)], check=True)
        source = subprocess.check_output(["findmnt", "-no", "SOURCE", str(self.folder)], text=True).strip()
        Path("/sys/fs/ext4", Path(source).name, "trigger_fs_error").write_text("a test")
        with pytest.raises(OSError, match="Read-only"):
            (self.folder / "anything").touch()

    def repair(self) -> None:
        """Check it, and mount it again."""
        subprocess.run(["umount", str(self.folder)], check=True)  # nobody may hold a file there
        subprocess.run(["e2fsck", "-p", str(self.image)], capture_output=True, check=False)
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Skips where no file system can be mounted."""
    image, folder = tmp_path / "image", tmp_path / "failing"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    mine = Disk(image, folder)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        mine.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a file system here, which needs root: {error}")
    yield mine
    subprocess.run(["umount", "-l", str(folder)], check=True)


def named(owner, reader: RunReader, wanted: Callable, since_s: float):
    """Wait for a status, which must come within NAMED_S of `since_s` by the file's own times; return it."""
    now = owner.until(reader, wanted)
    assert time.monotonic() - since_s < NAMED_S, now
    return now


def test_a_disk_that_turns_read_only_ends_the_run_with_that_reason(owner, disk):
    session = owner.session(runs=disk.folder)
    reader = owner.start(2, nodes=2)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    before = max(reader.ticks["tick"])
    disk.fail()
    failed_s = time.monotonic()
    now = named(owner, reader, lambda s: s.final, failed_s)
    print(f"named after {time.monotonic() - failed_s:.1f} s: {now}")
    assert now.state == "failed"
    assert "Read-only file system" in now.message
    assert now.next_step.startswith("make its file system writable again")
    ticks = reader.ticks["tick"].tolist()
    assert ticks == list(range(1, len(ticks) + 1))
    assert ticks[-1] >= before
    owner.ranks_gone(session)
    spent = {p: sum(p.cpu_times()[:2]) for p in of_this_test(owner.mark)}
    assert len(spent) == 1, "the supervisor alone is left"
    time.sleep(2)
    assert all(sum(p.cpu_times()[:2]) - was < 0.5 for p, was in spent.items())
    disk.repair()
    again = RunReader(reader.run)
    ended = owner.until(again, lambda s: again.kind("ranks-ended"))
    assert "Read-only file system" in ended.message
    assert again.kind("ranks-ended")[-1]["message"].count("Read-only file system") == 1
    kept = checkpoint.load(reader.run)[0]["tick"]
    resumed = session.resume(reader.run, room=2)
    owner.ticked(resumed, ticks[-1] + 10)
    assert resumed.segments()[-1].first_tick > kept - 1
    assert session.stop(resumed, wait_s=30).state == "stopped"


def test_a_home_that_turns_read_only_leaves_nobody_behind(owner, disk, monkeypatch):
    monkeypatch.setenv("AIINFRA_HOME", str(disk.folder))
    owner.home = disk.folder
    session = owner.session()
    reader = owner.start(2, nodes=2)
    disk.fail()
    now = named(owner, reader, lambda s: s.final, time.monotonic())
    assert "Read-only file system" in now.message
    session.close()
    owner.alone()


def test_runs_on_a_read_only_disk_are_refused_before_anything_starts(owner, tmpfs):
    folder = tmpfs(2**20)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    session = owner.session(runs=folder)
    with pytest.raises(StorageError, match=r"Read-only file system; .*AIINFRA_HOME"):
        session.launch("training", spec_of("training", {}), room=1)
    assert session.pool is None
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    owner.ticked(session.launch("training", spec_of("training", {"steps": 10_000_000}), room=1), 10)


# --- a disk that is slow, a clock that is set: by a library that the run's processes load before the system's ----------
def test_a_slow_disk_is_named_and_holds_up_no_step(owner, loaded):
    loaded("slow_fsync", AIINFRA_TEST_FSYNC_S="1")
    reader = owner.start(
        2, nodes=2
    )  # a checkpoint is due every 0.2 s, and forces something to disk more than five times
    session = owner.sessions[-1]

    def alarms():
        return [e for e in reader.kind("alarm") if e["what"] == "slow-disk"]

    owner.until(reader, lambda s: alarms())
    assert re.match(
        r"a checkpoint (is being written since|was written in) \d+ s: the disk is slow", alarms()[0]["message"]
    )
    asked_s = time.monotonic()
    asked = session.ask(reader, {"global_batch": 32})
    owner.until(reader, lambda s: reader.answer(asked.id))
    print(f"answered after {time.monotonic() - asked_s:.2f} s")
    owner.until(reader, lambda s: len(reader.kind("checkpoint")) >= 2)
    first, second = reader.kind("checkpoint")[:2]
    assert min(first["write_time_s"], second["write_time_s"]) > 3
    assert second["cost_s"] < 0.5, "it waited for the one before"
    at_s = reader.nodes[reader.nodes["node"] == 0]["t_s"].sort_values()
    during = at_s[(at_s > first["t_s"] - first["write_time_s"]) & (at_s < second["t_s"])]
    print(f"{len(during)} steps while two checkpoints were written, {during.diff().max():.2f} s at most between two")
    assert during.diff().max() < 1.0, "steps stood still"
    assert len(alarms()) == 1, "said once"
    assert session.stop(reader, wait_s=60).state == "stopped"
    assert checkpoint.load(reader.run)[0]["tick"] == max(reader.ticks["tick"])


LOOK = """
import sys
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status
reader = RunReader(sys.argv[1])
reader.poll()
print(status(reader).state)
"""


def test_a_clock_that_is_set_ends_nothing_and_alarms_nobody(owner, loaded, tmp_path):
    clock = tmp_path / "ahead"
    clock.write_text("0")
    env = loaded("jumping_clock", AIINFRA_TEST_CLOCK=str(clock))
    # The owner is a process of its own, so that its clock jumps, too.
    words = [f"--set={name}={value}" for name, value in LONG.items()]
    command = owner.command("run", "training", "--nodes=2", *words, env=env)
    reader = owner.newest()
    owner.ticked(reader, 10)
    for ahead in (86_400, -3_600, 0):
        clock.write_text(str(ahead))
        done = max(reader.ticks["tick"])
        end_s = time.monotonic() + 7  # longer than any silence that is taken for an end or a stall
        while time.monotonic() < end_s:
            reader.poll()
            time.sleep(0.1)
        assert command.poll() is None, command.communicate()
        # Somebody who looks for the first time, by the new clock.
        said = subprocess.run([sys.executable, "-c", LOOK, reader.run.path], env=env, capture_output=True, text=True)
        assert said.stdout == "running\n", said
        assert max(reader.ticks["tick"]) > done
    assert not [e for e in reader.kind("alarm") if e["what"] != "straggler"]  # two nodes on few cores take turns
    assert not reader.kind("owner-gone-end", "ranks-ended", "error")
    assert max(e["wall_s"] for e in reader.events) - min(e["wall_s"] for e in reader.events) > 80_000, (
        "no clock was set"
    )
    command.send_signal(signal.SIGINT)
    owner.until(reader, lambda s: s.final)
    for node in (0, 1):
        mine = reader.nodes[reader.nodes["node"] == node]
        assert mine["tick"].is_monotonic_increasing
        assert mine["t_s"].is_monotonic_increasing


# --- processes that run out -------------------------------------------------------------------------------------------
@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group for processes, of which a limit is to be set."""
    top = next((p for p in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if (p / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no control groups here")
    mine = top / f"aiinfra-test-{os.getpid()}"
    try:
        mine.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    if not (mine / "pids.max").exists():
        mine.rmdir()
        pytest.skip("control groups here count no processes")
    yield mine
    for pid in (mine / "cgroup.procs").read_text().split():
        (top / "cgroup.procs").write_text(pid)
    mine.rmdir()


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "while"])
def test_processes_that_run_out_at_a_relaunch_are_named(owner, group, when):
    reader = owner.start(2, nodes=2)
    session = owner.sessions[-1]
    supervisor = psutil.Process(reader.kind("launching")[0]["pid"])
    (group / "cgroup.procs").write_text(str(supervisor.pid))  # what it starts from now on is counted
    threads = supervisor.num_threads()
    if when == "before":
        (group / "pids.max").write_text(str(threads + 10))
    session.ask(reader, {"nodes": 4})
    if when == "while":  # somebody else takes what was there when it was asked
        wait_until(lambda: int((group / "pids.current").read_text()) > threads, "mpiexec")
        (group / "pids.max").write_text(str(threads + 6))
    else:
        owner.until(reader, lambda s: reader.kind("end"))
    struck_s = time.monotonic()
    now = named(owner, reader, lambda s: s.final, struck_s)
    print(f"named after {time.monotonic() - struck_s:.1f} s: {now}")
    assert now.state == "failed"
    assert "pids.max" in now.message
    assert now.next_step.startswith("resume at step ")
    (group / "pids.max").write_text("max")
    owner.ticked(session.resume(reader.run, room=2), max(reader.ticks["tick"]) + 10)
