"""The administrator's limits: a cap on ranks over all runs of a user, a cap on time; what a user sets can only lower them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aiinfra_widgets.errors import AdmissionError
from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.machine import limits, ranks_held
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import latest_checkpoint_tick, status

LARGE = Machine("large", "now", 64, 2**38)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The administrator's file, in a place that only this test looks at."""
    path = tmp_path / "limits.toml"
    monkeypatch.setattr(limits, "PLACES", (path,))
    for name in (limits.MAX_ENV, limits.RUN_ENV, limits.FILE_ENV):
        monkeypatch.delenv(name, raising=False)
    return path


def test_without_a_file_there_is_no_limit(written: Path) -> None:
    assert limits.user_limits() == limits.UserLimits()
    assert limits.limit(LARGE)[0] == 64 * limits.RANKS_PER_CORE


def test_the_lowest_of_all_sources_holds(written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written.write_text("max_ranks_per_user = 6\nmax_run_time_s = 1800\n")
    found = limits.user_limits()
    assert (found.ranks, found.run_s, found.ranks_from) == (6, 1800.0, str(written))
    monkeypatch.setenv(limits.MAX_ENV, "60")
    monkeypatch.setenv(limits.RUN_ENV, "999999")
    assert limits.user_limits().ranks == 6, "a variable of the user raises nothing"
    assert limits.user_limits().run_s == 1800
    own = tmp_path / "own.toml"
    own.write_text("max_ranks_per_user = 4\nmax_run_time_s = 90\n")
    monkeypatch.setenv(limits.FILE_ENV, str(own))
    monkeypatch.setenv(limits.MAX_ENV, "3")
    found = limits.user_limits()
    assert (found.ranks, found.ranks_from, found.run_s) == (3, limits.MAX_ENV, 90.0)
    assert "3 ranks" in found.told()[0]
    assert found.told()[1].endswith("90 s.")


def test_a_table_of_one_user_takes_the_place_of_the_general_one(written: Path) -> None:
    name = limits.user_name()
    written.write_text(f"max_ranks_per_user = 2\nmax_run_time_s = 60\n[users.{name}]\nmax_ranks_per_user = 9\n")
    assert (limits.user_limits().ranks, limits.user_limits().run_s) == (9, 60)
    written.write_text("max_ranks_per_user = 2\n[users.somebody-else]\nmax_ranks_per_user = 9\n")
    assert limits.user_limits().ranks == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_ranks = 2", "did you mean 'max_ranks_per_user'"),
        ("max_ranks_per_user = 0", "a whole number from 1"),
        ("max_ranks_per_user = 2.5", "a whole number from 1"),
        ("max_ranks_per_user = true", "a whole number from 1"),
        ('max_run_time_s = "1 h"', "seconds above 0"),
        ("max_run_time_s = inf", "seconds above 0"),
        ("max_ranks_per_user = ", "cannot be read"),
        ("users = 3", "must be tables"),
    ],
)
def test_a_file_that_cannot_be_understood_starts_nothing(written: Path, text: str, said: str) -> None:
    written.write_text(text)
    with pytest.raises(AdmissionError, match=said) as refused:
        limits.admit(1, LARGE)
    assert str(written) in str(refused.value)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have runs of their own, and these count: here only processes of the tests' home are seen."""
    everybody = ranks_held._of_this_user

    def of_this_test() -> Iterator[tuple[int, float, tuple[str, ...]]]:
        for pid, born_s, words in everybody():
            try:
                if psutil.Process(pid).environ().get("AIINFRA_HOME") == os.environ["AIINFRA_HOME"]:
                    yield pid, born_s, words
            except psutil.Error:
                continue

    monkeypatch.setattr(ranks_held, "_of_this_user", of_this_test)


def test_more_than_one_run_may_have_is_refused_with_its_reason(written: Path, alone: None) -> None:
    written.write_text("max_ranks_per_user = 3\n")
    limits.admit(3, LARGE)
    with pytest.raises(AdmissionError, match=r"1 to 3 \(max_ranks_per_user = 3, set by the administrator"):
        limits.admit(4, LARGE)


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the supervisor, a process of its own, reads as well."""
    path = tmp_path / "quota.toml"
    monkeypatch.setenv(limits.FILE_ENV, str(path))
    return path


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[list[Session]]:
    found = [Session(Machine("here", "now", 2, 2**35), runs=tmp_path / "runs") for _ in range(2)]
    yield found
    for session in found:
        session.close()


def wait_for(reader: RunReader, *states: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    for now in watch(reader, until=lambda s: s.state in states or s.final or time.monotonic() > end):
        last = now
    assert last.state in states, f"{last.state}: {last.message}"


@pytest.mark.mpi
@pytest.mark.timeout(180)
def test_the_cap_counts_all_runs_of_a_user_together(written: Path, alone: None, sessions: list[Session]) -> None:
    written.write_text("max_ranks_per_user = 3\n")
    first, second = sessions
    spec = spec_of("training", {"nodes": 2, "steps": 1_000_000})
    reader = first.launch("training", spec, room=2)
    wait_for(reader, "running")
    with pytest.raises(AdmissionError, match=rf"2 by run {reader.run.id}") as refused:
        second.launch("training", spec)
    assert "you may have 3 ranks at a time" in str(refused.value)
    assert "choose at most 1, or stop a run" in str(refused.value)
    assert second.pool is None, "nothing was started"
    with pytest.raises(AdmissionError):
        first.ask(reader, {"nodes": 4})
    limits.admit_forking(3)  # that run is younger than this process, so it is the one to give way
    code = "from aiinfra_widgets.machine.limits import admit_forking as a; a(2)"
    env = {**os.environ, limits.FILE_ENV: str(written)}
    younger = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"by run {reader.run.id}" in younger.stderr
    first.ask(reader, {"nodes": 1})  # its own ranks are not counted against it
    small = second.launch("training", spec_of("training", {"nodes": 1, "steps": 5}))
    wait_for(small, "done")
    assert second.pool is not None
    assert second.pool.state["size"] == 1, "the room beyond what was asked for is what the quota leaves"
    first.stop(reader)


def warm(session: Session) -> None:
    """Bring a rank up, which takes seconds that would count."""
    wait_for(session.launch("training", spec_of("training", {"nodes": 1, "steps": 3}), room=1), "done", seconds=120)


@pytest.mark.mpi
@pytest.mark.timeout(180)
def test_at_the_time_limit_a_run_is_saved_and_ended(quota: Path, sessions: list[Session]) -> None:
    session = sessions[0]
    warm(session)
    quota.write_text("max_run_time_s = 4\n")
    reader = session.launch("training", spec_of("training", {"nodes": 1, "steps": 1_000_000}), room=1)
    [*_, now] = watch(reader)
    assert (now.state, now.message) == ("stopped", "ended at the administrator's limit of 4 s")
    kept = latest_checkpoint_tick(reader)
    assert kept is not None
    assert kept > 0
    assert "until_s" in reader.kind("launching")[-1]
    # The next run of the same warm pool has a clock of its own.
    quota.write_text("max_run_time_s = 3600\n")
    again = session.launch("training", spec_of("training", {"nodes": 1, "steps": 3}), room=1)
    wait_for(again, "done")
    reader.poll()
    assert status(reader).state == "stopped"


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_that_does_not_answer_at_its_limit_is_ended_with_its_ranks(quota: Path, sessions: list[Session]) -> None:
    warm(sessions[0])
    quota.write_text("max_run_time_s = 8\n")
    reader = sessions[0].launch("training", spec_of("training", {"nodes": 1, "steps": 1_000_000}), room=1)
    wait_for(reader, "running")
    [rank] = [psutil.Process(e["pid"]) for e in reader.kind("started")]
    rank.suspend()  # it will never look into its inbox again
    [*_, now] = watch(reader, until=lambda s: s.final)
    assert now.state == "interrupted"
    assert now.message.startswith("ended at the administrator's limit of 8 s; it wrote no last checkpoint")
    psutil.wait_procs([rank], timeout=20)
    assert not rank.is_running()
