"""`aiinfra trace`: a file for Perfetto, never over another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.experiment import experiment, experiment_names


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> Iterator[Any]:
    """A run with one recorded step, of the experiment of `tests/runs/stages`; the command is given in an empty folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "runs" / "stages"))
    for found in (experiment, experiment_names):
        found.cache_clear()
    import stages

    (home / "runs").mkdir(parents=True)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    run = stages.RecordedStages(home / "runs")
    run.segment()
    run.step()
    run.step()
    yield run
    for found in (experiment, experiment_names):
        found.cache_clear()


def test_a_trace_is_written_beside_and_named_after_its_run(aiinfra, recorded: Any) -> None:
    said = aiinfra("trace", "last")
    assert said.code == 0, said.err
    path = Path(said.out.strip())
    assert path.name == f"{recorded.run.id}-trace.json"
    found = json.loads(path.read_text())
    assert {e["args"]["tick"] for e in found["traceEvents"] if e["ph"] == "X"} == {1, 2}
    assert "perfetto" in said.err


def test_a_file_that_is_there_is_left_alone_but_by_force(aiinfra, recorded: Any) -> None:
    there = Path("steps.json")
    there.write_text("mine")
    refused = aiinfra("trace", recorded.run.id[-4:], "-o", str(there))
    assert refused.code == 1
    assert refused.message == "steps.json is there already; choose another file with -o, or write over it with --force"
    assert there.read_text() == "mine"
    assert aiinfra("trace", "last", "-o", str(there), "--force", "--last", "1").code == 0
    assert {e["args"]["tick"] for e in json.loads(there.read_text())["traceEvents"] if e["ph"] == "X"} == {2}


def test_what_cannot_be_written_says_why(aiinfra, recorded: Any) -> None:
    assert "cannot write nowhere/steps.json: No such file" in aiinfra("trace", "-o", "nowhere/steps.json").message
    assert "cannot write the last 0 steps" in aiinfra("trace", "--last", "0").message
    assert "no run 'nothing'" in aiinfra("trace", "nothing").message
    assert not list(Path().iterdir()), "nothing is left behind by what was refused"
