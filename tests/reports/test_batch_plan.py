"""What a batch file may say, what is refused with its line, and what may run beside each other."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.machine.limits import RESERVED_BYTES
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.reports.batch.admission import Admission
from aiinfra_widgets.reports.batch.plan import plan

GIB = 2**30
REPO = Path(__file__).resolve().parents[2]
HERE = Machine(id="test", made_at="2026-01-01T00:00:00+00:00", cores=4, memory_bytes=8 * GIB, cpu_model="test")
PARAMETERS = """\
nodes = 1  # ranks
word = "a"
lr = 0.1
changes = []
overlap = False
"""


@pytest.fixture
def read(write, tmp_path):
    """Return a function that reads a batch file beside a notebook `lab.ipynb`."""
    write("1", parameters=PARAMETERS)

    def build(text, machine=HERE):
        path = tmp_path / "b.yaml"
        path.write_text(text)
        return plan(path, machine)

    return build


def test_a_grid_is_each_with_each_and_a_list_is_as_it_stands(read):
    found = read(
        "reports:\n"
        "  - notebook: lab.ipynb\n    parameters: {lr: 1e-3}\n    grid: {nodes: [1, 2], word: [no, '3']}\n"
        "  - notebook: lab.ipynb\n    name: second\n    list:\n      - {nodes: 4}\n      - {overlap: yes, changes: [1, 'two']}\n"
    )
    assert [dict(j.given) for j in found.jobs] == [
        {"lr": 0.001, "nodes": 1, "word": "no"},  # `no` is a word where the notebook's default is one
        {"lr": 0.001, "nodes": 1, "word": "3"},
        {"lr": 0.001, "nodes": 2, "word": "no"},
        {"lr": 0.001, "nodes": 2, "word": "3"},
        {"nodes": 4},
        {"overlap": True, "changes": [1, "two"]},  # and yes is a truth where it is one
    ]
    assert [j.id for j in found.jobs][:2] == ["lab-nodes=1-word=no", "lab-nodes=1-word=3"]
    assert dict(found.jobs[0].parameters) == {"nodes": 1, "word": "no", "lr": 0.001, "changes": [], "overlap": False}
    assert found.title == "b"


def test_ranks_are_counted_in_nodes_and_in_what_happens_later(read):
    jobs = read(
        "reports:\n  - notebook: lab.ipynb\n    list: [{}, {nodes: 2}, {changes: ['step=3 nodes=4']}, {word: nodes=3}]\n"
    ).jobs
    assert [j.ranks for j in jobs] == [1, 2, 4, 3]
    assert [j.cores for j in jobs] == [1, 2, 4, 3]


def test_limits_stand_in_defaults_and_are_overridden(read):
    jobs = read(
        "defaults: {wall_time: 2 min, memory: 1 GiB}\nreports:\n  - notebook: lab.ipynb\n"
        "  - {notebook: lab.ipynb, name: b, wall_time: 1.5 h, cell_time: 30, cores: 0}\n"
    ).jobs
    assert [(j.wall_s, j.memory_bytes, j.cores) for j in jobs] == [(120, GIB, 1), (5400, GIB, 0)]
    assert jobs[1].cell_s == 30


def test_what_makes_a_report_out_of_date_is_its_notebook_and_its_parameters(read, write):
    one = "reports: [{notebook: lab.ipynb, parameters: {nodes: %s}}]"
    first, same, other = (read(one % n).jobs[0].digest for n in ("1", "1", "2"))
    assert first == same != other
    write("2", parameters=PARAMETERS)
    assert read(one % "1").jobs[0].digest != first


ENTRY = "reports:\n  - notebook: lab.ipynb\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "the file is empty; it needs a list `reports:`", id="empty"),
        pytest.param("title: x\n", "b.yaml:1: there is no `reports:`", id="no-reports"),
        pytest.param("reports: []\n", "b.yaml:1: the list of reports is empty", id="no-report"),
        pytest.param("report:\n", "b.yaml:1: 'report' is no setting of a batch file; did you mean 'reports'?", id="near-top"),
        pytest.param("reports:\n  - notebok: x\n", "b.yaml:2: 'notebok' is no setting of a report; did you mean 'notebook'?", id="near"),
        pytest.param(
            "reports:\n  - notebook: lba.ipynb\n", "b.yaml:2: lba.ipynb: there is no such file; did you mean 'lab.ipynb'?",
            id="file"),
        pytest.param(ENTRY + "    parameters: {nods: 1}\n", "b.yaml:3: nods: no such parameter; did you mean 'nodes'?", id="parameter"),
        pytest.param(
            ENTRY + "    parameters:\n      lr: 1\n      nodes: two\n", "b.yaml:5: nodes: got 'two'; allowed: a whole number",
            id="type"),
        pytest.param(ENTRY + "    grid: {nodes: 2}\n", "b.yaml:3: grid, nodes: got '2'; write a list", id="no-list"),
        pytest.param(ENTRY + "    grid: {nodes: []}\n", "grid, nodes: an empty list makes no report", id="empty-axis"),
        pytest.param(ENTRY + "    list: []\n", "b.yaml:3: an empty list", id="empty-list"),
        pytest.param(ENTRY + "    grid: {nodes: [1]}\n    list: [{nodes: 1}]\n", "b.yaml:4: a report with both", id="both"),
        pytest.param(
            ENTRY + "    parameters: {nodes: 1}\n    grid: {nodes: [1]}\n", "'nodes' stands in `parameters:` as well, at b.yaml:3",
            id="twice"),
        pytest.param(
            ENTRY + "    wall_time: 3 parsecs\n", "b.yaml:3: got '3 parsecs'; allowed: an amount above 0 with one of s, min, h",
            id="unit"),
        pytest.param(ENTRY + "    memory: 2\n", "b.yaml:3: got '2' without a unit", id="no-unit"),
        pytest.param(ENTRY + "    cores: some\n", "b.yaml:3: cores: got 'some'", id="cores"),
        pytest.param(ENTRY + "    memory: 9 GiB\n", "needs 9.0 GiB; this machine has 8.0 GiB", id="memory"),
        pytest.param(ENTRY + "    parameters: {nodes: 99}\n", "asks for 99 ranks; this machine takes 1 to", id="ranks"),
        pytest.param(ENTRY + "  - notebook: lab.ipynb\n", "b.yaml:3: a report 'lab' is asked for at b.yaml:2 already", id="same-id"),
        pytest.param(
            ENTRY + "    name: a\n    name: b\n", "b.yaml:4: 'name' is there a second time; the first is at b.yaml:3",
            id="same-key"),
        pytest.param("share_cores: maybe\n" + ENTRY, "share_cores: got 'maybe'; allowed: true or false", id="truth"),
        pytest.param("a: &x [1]\nb: *x\n", "b.yaml:1: anchors and aliases", id="alias"),
        pytest.param("<<: {a: 1}\n" + ENTRY, "'<<' is no setting", id="merge"),
        pytest.param("reports: !!python/object/apply:os.system ['true']\n", "the tag", id="tag"),
        pytest.param("reports:\n  - notebook: a\n   grid: [\n", "b.yaml:3: this is not YAML", id="syntax"),
        pytest.param("reports: [" + "[" * 60 + "]" * 60 + "]", "nested deeper than 20 levels", id="deep"),
        pytest.param("? [a, b]\n: 1\n", "a name must be a word", id="strange-key"),
        pytest.param("- a\n", "a batch file: got a list", id="list"),
        pytest.param("# " + "x" * 1024 * 1024, "has at most 1048576", id="large"),
        pytest.param(
            ENTRY + "    grid: {nodes: [" + "1, " * 40 + "1], lr: [" + "1, " * 40 + "1]}\n", "the grid has 1681 members",
            id="many"),
    ],
)  # fmt: skip
def test_what_is_refused_says_where_and_what_to_do(read, text, says):
    with pytest.raises(SpecError) as error:
        read(text)
    assert says in str(error.value)


def test_everything_that_is_wrong_is_said_at_once(read):
    with pytest.raises(SpecError) as error:
        read(
            ENTRY + "    parameters: {nods: 1, lr: x}\n  - notebook: gone.ipynb\n  - {notebook: lab.ipynb, cores: x}\n"
        )
    lines = str(error.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["3", "3", "4", "5"]


def test_bombs_are_refused_before_they_unfold(read):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" if i else "a0: &a0 [x, x]" for i in range(12)]
    with pytest.raises(SpecError, match="anchors and aliases"):
        read("\n".join(levels))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        plan(tmp_path / "none.yaml", HERE)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not UTF-8"):
        plan(tmp_path / "b.yaml", HERE)


@pytest.fixture
def jobs(read):
    """Jobs of 1, 2, 3 and 1 ranks."""
    return read("reports:\n  - notebook: lab.ipynb\n    list: [{nodes: 1}, {nodes: 2}, {nodes: 3}, {lr: 1}]\n").jobs


def test_reports_share_the_machine_and_not_its_cores(jobs):
    one, two, three, also_one = jobs
    rule = Admission(HERE, at_once=3, share_cores=False)
    assert rule.next(jobs, []) is one
    assert rule.next([three, two], [one]) is three  # 4 ranks on 4 cores
    assert rule.next([three, two], [two]) is two  # the first that fits
    assert rule.next([two], [three]) is None
    assert rule.next([also_one], [one, two]) is also_one
    assert "5 ranks on 4 cores" in rule.against(two, [three], 8 * GIB)
    assert Admission(HERE, at_once=3, share_cores=True).next([two], [three]) is two


def test_no_more_at_once_than_were_asked_for(jobs):
    assert Admission(HERE, at_once=1, share_cores=True).next(jobs[1:], jobs[:1]) is None
    assert Admission(HERE, at_once=2, share_cores=True).next(jobs[2:], jobs[:2]) is None


def test_memory_is_counted_as_promised_and_as_free(jobs):
    rule = Admission(HERE, at_once=4, share_cores=True)
    large = dataclasses.replace(jobs[0], memory_bytes=4 * GIB)
    assert rule.against(large, [], 8 * GIB) == ""
    assert "GiB" in rule.against(large, [large], 8 * GIB)  # 8 GiB promised, and the system needs its share
    assert "GiB" in rule.against(large, [], 3 * GIB)
    assert rule.against(dataclasses.replace(large, memory_bytes=4 * GIB - RESERVED_BYTES), [large], 8 * GIB) == ""


def test_ranks_of_all_reports_together_stay_below_the_administrators_cap(jobs, monkeypatch):
    monkeypatch.setitem(os.environ, "AIINFRA_MAX_NODES", "3")
    rule = Admission(HERE, at_once=4, share_cores=True)
    assert rule.against(jobs[1], [jobs[0]], 8 * GIB) == ""
    assert "4 ranks; 3 are allowed" in rule.against(jobs[1], [jobs[1]], 8 * GIB)


def test_that_reports_run_alone_is_said(jobs):
    assert Admission(HERE, 2, False).advice(jobs) == ""  # three and one fit
    small = dataclasses.replace(HERE, cores=2)
    assert Admission(small, 2, False).advice(jobs).startswith("2 reports need all 2 cores, and no other")
    assert Admission(small, 1, False).advice(jobs) == ""


def test_the_batch_file_that_ships_is_right():
    found = plan(REPO / "labs" / "batch.yaml", HERE)
    assert found.jobs[0].id == "training-workload=digits-cnn-global_batch=64"
    assert len(found.jobs) == 4 + 3 + 2
    assert [j.ranks for j in found.jobs] == [2] * 4 + [1, 1, 2] + [1, 1]
