"""A node count that no experiment takes: refused before the command loads anything, and in the words that the Spec has for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aiinfra_widgets.cli.early import refuse
from aiinfra_widgets.errors import AdmissionError, SpecError
from aiinfra_widgets.experiment import experiment, experiment_names
from aiinfra_widgets.launch.machines import this_machine
from aiinfra_widgets.machine.limits import admit

#: Carries out a command in a process that then tells what it loaded, and which processes it made by the interpreter's own audit events.
TELLING = """
import sys, json
made = []
events = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "os.spawn"}
sys.addaudithook(lambda event, args: made.append(event) if event in events else None)
from aiinfra_widgets.cli import main
sys.argv = ["aiinfra", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(json.dumps({"code": ended.code, "made": made, "loaded": [m for m in sys.modules if "." not in m]}))
"""
HEAVY = {"torch", "pandas", "bokeh", "matplotlib", "mpi4py", "numpy", "scipy", "duckdb", "pydantic", "typer", "rich", "psutil"}  # fmt: skip
REFUSED = ("10000", "1e9", "-1", "0", "1.5", "nan", "inf", "two", "", "2; touch pwned", "513")


def told(*words: str) -> tuple[dict, str]:
    done = subprocess.run([sys.executable, "-c", TELLING, *words], capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run", "training", "--nodes", "10000"),
        ("run", "serving", "--set=nodes=10000", "--json"),
        ("run", "training", "--change", "step=5 nodes=10000"),
        ("ask", "last", "nodes=10000"),
        ("sweep", "training", "--over", "nodes=1,10000"),
    ],
    ids=" ".join,
)
def test_a_refusal_has_loaded_nothing_and_made_no_process(words: tuple[str, ...], home) -> None:
    found, said = told(*words)
    assert said == "aiinfra: nodes: got 10000; allowed: a whole number from 1 to 512\n"
    assert (found["code"], found["made"]) == (1, [])
    assert HEAVY.isdisjoint(found["loaded"])
    assert not home.exists()


def test_the_telling_sees_what_another_refusal_loads() -> None:
    found, said = told("run", "training", "--nodes", "10000", "--set", "seed=-1")
    assert len(said.splitlines()) == 2, "every wrong field at once"
    assert {"typer", "pydantic"} <= set(found["loaded"])
    assert {"torch", "pandas", "bokeh", "matplotlib", "mpi4py", "numpy"}.isdisjoint(found["loaded"])


@pytest.mark.parametrize("name", experiment_names())
@pytest.mark.parametrize("text", REFUSED)
def test_it_is_the_rule_of_every_spec_and_in_its_words(name: str, text: str) -> None:
    with pytest.raises(SpecError) as early:
        refuse(["run", name, "--nodes", text])
    with pytest.raises(SpecError) as late:
        experiment(name).spec.make({"nodes": text})
    assert str(early.value) == str(late.value)


@pytest.mark.parametrize(
    "words",
    ["run training --nodes 400", "run training --set nodes=400", "run training --room=9999", "resume last --room 9999"],
)
def test_more_than_this_machine_takes_is_refused_without_a_session(words: str, home) -> None:
    found, said = told(*words.split())
    with pytest.raises(AdmissionError) as late:
        admit(int(words[-4:].strip("= ")), this_machine())
    assert said == f"aiinfra: {late.value}\n"
    assert (found["code"], found["made"]) == (1, [])
    assert (HEAVY - {"psutil"}).isdisjoint(found["loaded"])
    assert not home.exists()


@pytest.mark.parametrize(
    "words",
    [
        "run training --nodes 1", "run training --set 400", "run training --nodes", "plan --devices 10000", "ask last size=0", "run training --room 1.5",
        "sweep training --over nodes=1..600", "run training --nodes 0 --fields", "run training --on slurm --nodes 400", "",
    ],
)  # fmt: skip
def test_what_is_no_slip_of_a_count_is_left_to_the_command(words: str) -> None:
    refuse(words.split())
