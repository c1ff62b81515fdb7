"""Run directories: creating, finding, refusing what is none, listing many, asking SQL, moving and deleting."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from aiinfra_widgets.errors import ControlError, RunFormatError, SpecError, StorageError
from aiinfra_widgets.launch.session import delete
from aiinfra_widgets.runs import control, layout
from aiinfra_widgets.runs.home import make_private
from aiinfra_widgets.runs.layout import RunDir, find, write_json
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status
from aiinfra_widgets.runs.table import listing, samples

from_folder = pytest.mark.usefixtures("made")


def test_a_run_holds_what_was_asked(made):
    manifest = made.run.read_manifest()
    assert manifest["format"] == layout.FORMAT == 1
    assert (manifest["experiment"], manifest["note"], manifest["id"]) == ("training", "by hand", made.run.id)
    assert made.run.read_spec() == made.spec
    assert made.run.read_machine().id == "here"
    assert manifest["versions"]["python"]
    assert made.run.prediction(made.spec.digest()).exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is not a run: it has no run.json; see: aiinfra runs"),
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "holds no JSON object"),
        ('{"format": 2}', "run directory of format 2; this release reads format 1"),
        ('{"format": 2, "versions": {"aiinfra-lab": "8"}}', "the release that made it (aiinfra-lab 8)"),
        ('{"format": 2, "versions": 5}', "the release that made it (unknown)"),
        ("{}", "format None"),
        ('{"format": 1}', "names no experiment"),
        ('{"format": 1, "experiment": 5, "spec": {}}', "names no experiment"),
        ('{"format": 1, "experiment": "training", "spec": []}', "names no experiment, or no spec"),
    ],
)
def test_what_is_no_run_of_this_format_is_refused_and_listed(made, text, says):
    made.run.manifest.unlink()
    if text is not None:
        made.run.manifest.write_text(text)
    with pytest.raises(RunFormatError) as error:
        RunReader(made.run)
    assert says in str(error.value)
    with pytest.raises(RunFormatError):
        find(made.run.id, made.run.path.parent)
    rows = listing(made.run.path.parent)
    assert [r["status"] for r in rows] == ([] if text is None else ["unreadable"])
    assert samples(made.run.path.parent).empty


def test_a_manifest_that_is_a_folder_or_of_an_unknown_experiment(made):
    data = json.loads(made.run.manifest.read_text())
    write_json(made.run.manifest, {**data, "experiment": "trainin"})
    assert "did you mean 'training'" in listing(made.run.path.parent)[0]["message"]
    made.run.manifest.unlink()
    made.run.manifest.mkdir()
    with pytest.raises(RunFormatError, match="not readable"):
        made.run.read_manifest()


def test_find_by_name_by_its_end_by_last_and_by_path(make, monkeypatch, tmp_path):
    first, second = make(), make()
    folder = first.run.path.parent
    assert find(first.run.id, folder).path == first.run.path
    assert find(second.run.id[-4:], folder).path == second.run.path
    assert find("last", folder).id == max(first.run.id, second.run.id)
    assert find(str(first.run.path), tmp_path).path == first.run.path
    monkeypatch.chdir(folder)
    assert find(first.run.id, tmp_path).path == first.run.path
    twin = second.run.path.rename(folder / ("2" + first.run.id[1:-5] + second.run.id[-5:]))
    shutil.copytree(twin, folder / f"3-{second.run.id[-4:]}")
    with pytest.raises(RunFormatError, match=f"it could be {twin.name}, 3-{second.run.id[-4:]}"):
        find(second.run.id[-4:], folder)


@from_folder
@pytest.mark.parametrize(
    "name",
    [
        "../x", "../../etc/passwd", "/etc", "/", "..", ".", "", "a\0b", "/a\0b", "a\nb", "a\u202eb", "x" * 300, "/" + "x" * 300, "-rf",
        "$(id)", "`id`", "CON", "~", "~root", "*", "last ", "%s", "a;b",
    ],
    ids=repr,
)  # fmt: skip
def test_a_bad_name_is_refused_and_nothing_else_happens(tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunFormatError) as error:
        find(name, tmp_path / "runs")
    assert "run" in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_message_of_a_missing_run_names_the_newest(make):
    names = sorted(make().run.id for _ in range(4))
    with pytest.raises(RunFormatError) as error:
        find("nosuch", make().run.path.parent)
    assert sum(name in str(error.value) for name in names) >= 2
    assert "see: aiinfra runs" in str(error.value)


def test_a_folder_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="set AIINFRA_HOME to a folder that you may write"):
            make_private(path)
    assert make_private(tmp_path / "new" / "deep").stat().st_mode & 0o777 == 0o700


def test_a_json_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(StorageError, match="cannot write"):
        write_json(tmp_path / "nowhere" / "x.json", {"a": 2})
    with pytest.raises((TypeError, ValueError)):
        write_json(path, {"a": 1, ("not", "a", "key"): 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_listing_newest_first_with_status(make):
    first, second = make(), make()
    first.segment(0, 0, 2)
    first.ticks(1, 7, 2, 0)
    first.outcome("done")
    os.rename(second.run.path, second.run.path.with_name("99999999-000000-training-ffff"))
    rows = listing(first.run.path.parent)
    assert [r["status"] for r in rows] == ["new", "done"]
    assert (rows[1]["run"], rows[1]["nodes"], rows[1]["ticks"], rows[1]["workload"]) == (
        first.run.id,
        2,
        7,
        "net-10-5-2",
    )
    assert len(listing(first.run.path.parent, most=1)) == 1
    assert listing(first.run.path.parent / "nowhere") == []


def test_sql_over_many_runs(make):
    one, two, empty = make(), make(), make()
    one.ticks(1, 5, 2, 0)
    two.ticks(1, 3, 1, 0, extra=1.5)
    with two.run.samples(0, 0).open("ab") as file:
        file.write(b"4,0.1")  # torn
    folder = one.run.path.parent
    found = samples(folder, "select run, count(*) as n, max(tick) as last from samples group by run order by n desc")
    assert found.to_dict("records") == [{"run": one.run.id, "n": 10, "last": 5}, {"run": two.run.id, "n": 3, "last": 3}]
    joined = samples(
        folder, "select distinct s.node, r.experiment from samples s join runs r using (run) order by s.node"
    )
    assert joined.to_dict("records") == [{"node": 0, "experiment": "training"}, {"node": 1, "experiment": "training"}]
    assert samples(folder, "select count(*) as n from runs")["n"].iloc[0] == 3
    assert samples(folder, "select extra from samples where run = '" + one.run.id + "'")["extra"].isna().all()
    assert not list(empty.run.path.glob("samples/*"))


def test_sql_bears_a_quote_in_a_path_and_an_empty_folder(tmp_path, make):
    made = make()
    made.ticks(1, 2, 1, 0)
    odd = tmp_path / 'it\'s "odd" [x]'
    shutil.move(made.run.path.parent, odd)
    assert len(samples(odd)) == 2
    (tmp_path / "none").mkdir()
    assert samples(tmp_path / "none").empty


def test_a_run_can_be_moved_and_deleted(made, tmp_path):
    made.segment(0, 0, 1)
    made.ticks(1, 3, 1, 0)
    made.outcome("done")
    moved = RunDir(made.run.path.rename(tmp_path / "moved"))
    reader = RunReader(moved)
    reader.poll()
    assert (len(reader.ticks), status(reader).state) == (3, "done")
    link = tmp_path / "link"
    link.symlink_to(moved.path)
    with pytest.raises(RunFormatError, match="is a link"):
        delete(RunDir(link))
    delete(moved)
    assert not moved.path.exists()
    with pytest.raises(RunFormatError):
        delete(moved)


def test_a_run_that_is_deleted_while_somebody_looks(made):
    made.launched()
    made.segment(0, 0, 1)
    reader = made.read()
    assert status(reader).state == "running"
    shutil.rmtree(made.run.path)
    assert not reader.poll()
    now = status(reader)
    assert (now.state, now.final) == ("interrupted", True)
    assert "was deleted or moved" in now.message


def test_asking_is_checked_and_kept_with_its_prediction(made):
    request = control.ask(made.run, made.spec, {"nodes": 2, "learning_rate": "0.5"}, by="test", at_tick=9)
    assert request.changes == {"nodes": 2, "learning_rate": 0.5}
    assert control.pending(made.run) == [request]
    assert made.run.prediction(made.spec.changed({"nodes": 2, "learning_rate": 0.5}).digest()).exists()
    for wrong, error, says in (
        ({"changes": {"seed": 1}}, ControlError, "seed cannot change"),
        ({"changes": {"nodes": 0}}, SpecError, "nodes: got 0"),
        ({"changes": {"nodse": 1}}, SpecError, "did you mean 'nodes'"),
        ({}, ControlError, "nothing was asked"),
        ({"verb": "fly"}, ControlError, "training cannot 'fly'"),
        ({"verb": "pause", "arguments": {"x": 1}}, ControlError, "pause: x: no such argument"),
    ):
        with pytest.raises(error, match=says):
            control.ask(made.run, made.spec, **wrong)
    assert control.pending(made.run) == [request]


def test_requests_come_in_the_order_of_asking(made):
    asked = [control.ask(made.run, made.spec, verb=v).id for v in ("pause", "resume", "checkpoint", "stop")]
    assert [r.id for r in control.pending(made.run)] == asked == sorted(asked)


def test_what_was_never_decided_is_put_aside_before_a_resume_but_not_what_is_scheduled(made):
    late = control.ask(made.run, made.spec, verb="stop")
    later = control.ask(made.run, made.spec, {"nodes": 2}, at_tick=50)
    (made.run.inbox / "garbage.json").write_text("{")
    assert set(control.discard(made.run)) == {late.id, "garbage"}
    assert control.pending(made.run) == [later]
    assert {p.name for p in made.run.taken.iterdir()} == {f"{late.id}.json", "garbage.json"}


def test_waiting_for_a_decision():
    answers = iter([None, None, {"kind": "applied"}])
    assert control.wait_decided(lambda: next(answers), timeout_s=30, pause_s=0.001) == {"kind": "applied"}
    assert control.wait_decided(lambda: None, timeout_s=0.01, pause_s=0.001) is None
