"""The command without ranks: what is refused and how it is said, and that nothing was started or written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aiinfra_widgets.cli import _joined
from aiinfra_widgets.experiment import experiment

TRAIN = ("run", "training")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*TRAIN, "--nodes", "0"), "nodes: got 0; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "-1"), "nodes: got -1; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "10000"), "nodes: got 10000; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "1e9"), "nodes: got 1000000000; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "1.5"), "nodes: got '1.5'; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "nan"), "nodes: got 'nan'; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "two"), "nodes: cannot read 'two'; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", ""), "nodes: cannot read ''; allowed: a whole number from 1 to 512"),
        ((*TRAIN, "--nodes", "2", "--set", "nodes=3"), "nodes: got '3' and '2'; give it once"),
        ((*TRAIN, "--set", "learning_rate=nan"), "learning_rate: got nan; allowed: a number from 0 to 10"),
        ((*TRAIN, "--set", "learning_rate=inf"), "learning_rate: got inf; allowed: a number from 0 to 10"),
        ((*TRAIN, "--set", "overlap=perhaps"), "overlap: got 'perhaps'; allowed: true or false"),
        ((*TRAIN, "--set", "workload=digits-mlp"), "workload: got 'digits-mlp'; did you mean 'digits-cnn' or"),
        ((*TRAIN, "--set", "workload="), "workload: got ''; known: clicks-dlrm, dense-100-64-1, digits-cnn"),
        ((*TRAIN, "--set", "stepz=3"), "stepz: no such field; did you mean 'steps'?"),
        ((*TRAIN, "--set", "steps"), "got 'steps'; write it as key=value"),
        ((*TRAIN, "--set", "=3"), "got '=3'; write it as key=value"),
        ((*TRAIN, "--set", "global_batch=100000"), "global_batch: got 100000; allowed: a whole number from 1 to 65536"),
        ((*TRAIN, "--set", "global_batch=2000"), "global_batch: got 2000; digits-cnn has 1437 training samples"),
        ((*TRAIN, "--nodes", "9", "--set", "global_batch=8"), "nodes: got 9; with global_batch 8 some would have no sample"),
        ((*TRAIN, "--set", "slow_node=5"), "slow_node: got 5; with 1 node"),
        ((*TRAIN, "--set", "link_bandwidth_bytes_per_s=3 kg"), "link_bandwidth_bytes_per_s: cannot read '3 kg'"),
        ((*TRAIN, "--room", "9999"), "nodes: got 9999; this machine takes 1 to "),
        ((*TRAIN, "--change", "nodes=1"), "it must say when, as step=N; for example: \"step=200 nodes=1\""),
        ((*TRAIN, "--change", "step=soon nodes=1"), "it must say when, as step=N"),
        ((*TRAIN, "--change", "step=-1 nodes=1"), "it must say when, as step=N"),
        ((*TRAIN, "--change", "step=5"), "it says when, but not what; add a live field or a verb"),
        ((*TRAIN, "--change", "step=5 fly"), "'fly' is neither key=value nor one of pause, resume, checkpoint, stop"),
        ((*TRAIN, "--change", "step=5 seed=1"), "seed cannot change while the run goes on; live fields: nodes, "),
        ((*TRAIN, "--change", 'step=5 "nodes=1'), "cannot be read (No closing quotation); write it as step=N key=value"),
        ((*TRAIN, "--change", "step=5 nodes=0"), "nodes: got 0; allowed: a whole number from 1 to 512"),
        (("run", "trainin"), "no experiment 'trainin'; did you mean 'training'?"),
        (("resume", "nosuch"), "no run 'nosuch' in "),
        (("resume", "last"), "newest: none yet; see: aiinfra runs"),
        (("watch",), "no run 'last' in "),
        (("ask", "last", "nodes=2"), "no run 'last' in "),
        (("watch", "../../etc"), "is not a run: it has no run.json"),
    ],
    ids=lambda x: " ".join(x[1:]) if isinstance(x, tuple) else None,
)  # fmt: skip
def test_bad_input_is_refused_with_a_message_before_anything_is_started(aiinfra, home, words, says):
    said = aiinfra(*words)
    assert said.code == 1
    assert says in said.message
    assert not home.exists()


def test_every_wrong_field_is_named_at_once(aiinfra):
    lines = aiinfra(*TRAIN, "--nodes", "x", "--set", "stepz=1", "--set", "seed=-1").message.splitlines()
    assert [line.split(":")[0] for line in lines] == ["stepz", "nodes", "seed"]


@pytest.mark.parametrize(
    "words", [("frobnicate",), ("run",), ("ask",), ("ask", "last"), (*TRAIN, "--nope"), ("runs", "--runs")]
)
def test_a_command_that_cannot_be_parsed_shows_how(aiinfra, words):
    said = aiinfra(*words)
    assert (said.code, said.out) == (1, "")
    assert "Usage: aiinfra" in said.err or "requires an argument" in said.err
    assert "Error: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--help",), "doctor"),
        (("run", "--help"), "--change"),
        ((*TRAIN, "--fields"), "learning_rate"),
        (("runs",), "no runs yet; start one with: aiinfra run training --nodes 2"),
    ],
)
def test_what_answers_without_ranks(aiinfra, home, words, says):
    said = aiinfra(*words)
    assert (said.code, said.err) == (0, "")
    assert says in said.out
    assert not home.exists()


def test_fields_names_every_field_with_its_range(aiinfra):
    out = aiinfra(*TRAIN, "--fields").out
    for knob in experiment("training").spec.knobs().values():
        assert knob.name in out
    assert "1 to 512" in out


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"kind": "applied", "tick": 7, "cost_s": 0.002, "reason": None}, "send size=2: done at watch 7, took 2 ms"),
        ({"kind": "refused", "tick": 7, "cost_s": None, "reason": "too [big]"}, "send size=2: refused. too [big]"),
        ({"kind": "asked", "tick": None, "cost_s": None, "reason": None}, "not decided yet; see: aiinfra watch 1-x"),
    ],
)
def test_an_answer_is_said_in_the_words_of_the_experiment(capfd, answer, says):
    from aiinfra_widgets.cli import show

    show.answer({"run": "1-x", "asked": "send size=2", **answer}, "watch")
    assert says in capfd.readouterr().out


def test_no_runs_is_an_empty_list(aiinfra):
    assert aiinfra("runs", "--json").json == []


def test_quantities_are_read_with_their_units():
    spec = experiment("training").spec.make(
        {"link_bandwidth_bytes_per_s": "1 Gbit/s", "link_latency_s": "2 ms", "bucket_bytes": "1 MiB"}
    )
    assert spec.link_bandwidth_bytes_per_s == 125e6
    assert spec.link_latency_s == pytest.approx(0.002)
    assert spec.bucket_bytes == 2**20


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["report", "x", "-p", "nodes", "2"], ["report", "x", "-p", "nodes=2"]),
        (["-p", "a=b", "-p", "c", "d", "-o", "e"], ["-p", "a=b", "-p", "c=d", "-o", "e"]),
        (["-p", "lonely"], ["-p", "lonely"]),
    ],
)
def test_papermills_way_of_giving_a_parameter(given, joined):
    assert _joined(given) == joined


def test_the_command_is_installed_and_answers_without_the_heavy_packages():
    code = "import sys, aiinfra_widgets.cli.app; print([m for m in ('torch', 'mpi4py', 'bokeh', 'pandas', 'duckdb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    done = subprocess.run(["aiinfra", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "calibrate" in done.stdout


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        "aiinfra run training --fields | head -1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
