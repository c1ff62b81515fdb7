"""The run browser: a list from manifests, two segments side by side, and a trash from which everything comes back."""

from __future__ import annotations

import json
import os
import re
import time
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ControlError, RunFormatError
from aiinfra_widgets.runs import trash
from aiinfra_widgets.widgets.runs import PAGE, Runs, table_html
from aiinfra_widgets.widgets.runs_compare import asked, ratio_text, ratios, side_by_side_html, sides, verdict
from aiinfra_widgets.widgets.runs_screen import RunsScreen
from tests.widgets.conftest import Recorded


def finished(folder: Path, step_s: float = 0.01, jitter: float = 0.0, seed: int = 0, **changes: int) -> Recorded:
    """A run with one settled segment whose steps take about `step_s`."""
    run, chance = Recorded(folder), np.random.default_rng(seed)
    run.segment(**changes)
    for factor in chance.normal(1.0, jitter, 60) if jitter else [1.0] * 60:
        run.steps(1, step_s * float(factor))
    run.end()
    return run


def plain(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def test_the_table_says_what_was_asked_and_what_came_out(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs")
    [row] = Runs(tmp_path / "runs").table()
    assert (row["id"], row["experiment"], row["nodes"], row["state"]) == (run.run.id, "training", "1", "done")
    assert (row["quantity"], row["measured"], row["predicted"]) == ("Step time", "10 ms", "\u2013")
    assert row["note"] == "Steps 1000", "where nobody wrote a note, the setup stands"


def test_a_page_is_read_and_no_more(tmp_path: Path) -> None:
    for _ in range(PAGE + 3):
        Recorded(tmp_path / "runs")
    runs = Runs(tmp_path / "runs")
    assert len(runs.rows()) == PAGE + 3
    assert runs.reading.paths() == [], "a list needs no run to be read"
    runs.table()
    assert runs.reading.paths() == [r.path for r in runs.rows()[:PAGE]]
    runs.page = 1
    assert len(runs.on_page()) == 3


def test_what_is_no_run_is_left_out_and_what_is_broken_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    finished(folder)
    (folder / "notes").mkdir()
    for name, text in (
        ("0-broken", "{"),
        ("0-newer", '{"format": 99, "experiment": "x", "spec": {}}'),
        ("0-list", "[]"),
    ):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(text)
    rows = {r["id"]: r for r in Runs(folder).table()}
    assert len(rows) == 4
    assert "format 99" in rows["0-newer"]["message"]
    assert {rows[n]["state"] for n in ("0-broken", "0-newer", "0-list")} == {"unreadable"}


def test_words_find_runs_by_note_id_and_setup(tmp_path: Path) -> None:
    first, second = Recorded(tmp_path / "runs"), Recorded(tmp_path / "runs")
    path = second.run.manifest
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "After the new switch"}))
    runs = Runs(tmp_path / "runs", text="switch NEW")
    assert [r.id for r in runs.rows()] == [second.run.id]
    runs.filter(first.run.id[-4:])
    assert first.run.id in [r.id for r in runs.rows()]
    runs.filter("digits-cnn", "training")
    assert len(runs.rows()) == 2
    runs.filter("", "serving")
    assert runs.rows() == []


def test_two_segments_side_by_side(tmp_path: Path) -> None:
    a = sides(finished(tmp_path / "runs", 0.010, 0.05).run)[0]
    b = sides(finished(tmp_path / "runs", 0.015, 0.05, seed=1, nodes=2).run)[0]
    assert asked(a, b) == [("Nodes", "1", "2")]
    [step] = [r for r in ratios(a, b) if r.quantity == "step_time_s"]
    assert step.value == pytest.approx(1.5, rel=0.05)
    assert step.low is not None
    assert step.high is not None
    assert step.low < 1.5 < step.high
    assert step.high / step.low < 1.2, "60 steps with 5 % of noise say more than that"
    assert verdict(step) == "B is worse"
    text = plain(side_by_side_html(a, b))
    assert "Nodes 1 2" in text
    assert ratio_text(step) in text


def test_equal_runs_differ_within_chance_nineteen_times_in_twenty(tmp_path: Path) -> None:
    found = [sides(finished(tmp_path / "runs", 0.01, 0.1, seed=s).run)[0] for s in range(24)]
    pairs = [
        next(r for r in ratios(a, b) if r.quantity == "step_time_s")
        for a, b in zip(found[::2], found[1::2], strict=True)
    ]
    inside = sum(r.low <= 1 <= r.high for r in pairs if r.low is not None and r.high is not None)
    assert inside >= 10, "of 12; fewer happen once in fifty times"
    assert all(r.low is not None for r in pairs)


def test_a_segment_too_short_has_no_interval(tmp_path: Path) -> None:
    run = Recorded(tmp_path / "runs")
    run.segment()
    run.steps(8)
    run.segment(nodes=2)
    run.steps(30)
    run.end()
    a, b = sides(run.run)
    [step] = [r for r in ratios(a, b) if r.quantity == "step_time_s"]
    assert (step.low, step.high, verdict(step)) == (None, None, "")
    assert "too short to compare" in side_by_side_html(a, b)
    assert "segment 1: 2 nodes" in plain(Runs(tmp_path / "runs").compare("last", "last"))
    with pytest.raises(ControlError, match="allowed: 0, 1"):
        Runs(tmp_path / "runs").compare("last", "last", (7, None))


def test_deleting_moves_and_putting_back_restores_every_byte(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run = finished(folder).run
    before = {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    runs = Runs(folder)
    assert runs.delete([run.id]) == [run.id]
    assert runs.rows() == []
    assert runs.trash == [run.id]
    assert runs.put_back() == [run.id]
    assert {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    runs.delete([run.id])
    assert runs.empty_trash() == 1
    assert not run.path.exists()
    assert runs.trash == []


def test_a_run_that_goes_on_is_never_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run = Recorded(folder)
    run.segment()
    run.steps(20)
    for node in range(2):
        run.run.heartbeat(0, node).touch()
    with pytest.raises(ControlError, match="it is running"):
        trash.discard(run.run.id, folder)
    run.run.manifest.write_text("{")  # nobody can read what it is; its ranks still write
    with pytest.raises(ControlError, match="a moment ago"):
        trash.discard(run.run.id, folder)
    old = time.time() - 60
    for node in range(2):
        os.utime(run.run.heartbeat(0, node), (old, old))
    trash.discard(run.run.id, folder)
    assert trash.trashed(folder) == [run.run.id]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "notes", "link", "missing"])
def test_only_a_run_of_this_folder_can_be_deleted(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "runs"
    run = finished(folder).run
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    (folder / "notes").mkdir()
    (folder / "link").symlink_to(run.path)
    with pytest.raises(RunFormatError):
        trash.discard(name, folder)
    assert run.manifest.exists()
    assert (tmp_path / "other" / "run.json").exists()


def test_nothing_in_the_trash_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run = finished(folder).run
    trash.discard(run.id, folder)
    run.path.mkdir()
    (run.path / "run.json").write_text("{}")
    with pytest.raises(Exception, match="is there already"):
        trash.discard(run.id, folder)
    with pytest.raises(Exception, match="is there already"):
        trash.restore(run.id, folder)


def test_an_archive_never_replaces_a_file(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs").run
    (tmp_path / "mine.zip").write_text("kept")
    with pytest.raises(ControlError, match="is there already"):
        Runs(tmp_path / "runs").export([run.id], tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "kept"


def test_headless_it_is_a_table_and_says_what_to_do_where_there_is_none(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs").run
    html = table_html(Runs(tmp_path / "runs").table(), 1)
    assert run.id in html
    assert "press Run" in table_html(Runs(tmp_path / "none").table(), 0)


def filled(screen: RunsScreen) -> list[dict[str, Any]]:
    assert screen._filler is not None
    screen._filler.join(30)
    return list(screen.table.rows)


def test_buttons_say_what_can_be_done_with_what_is_ticked(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    names = [finished(folder, s).run.id for s in (0.01, 0.02)]
    screen = RunsScreen(Runs(folder))
    assert {r["measured"] for r in filled(screen)} == {"10 ms", "20 ms"}
    enabled = lambda: {n for n, b in screen.buttons.items() if not b.disabled}  # noqa: E731
    assert enabled() == set()
    screen.table.picked = names[:1]
    assert enabled() == {"open", "compare", "export", "delete"}
    screen.table.picked = names
    assert enabled() == {"compare", "export", "delete"}
    screen.buttons["compare"].click()
    assert "2\u00d7" in plain(screen.panel.children[1].value)
    screen.buttons["delete"].click()
    assert Path(folder / names[0]).exists(), "nothing goes before it is confirmed"
    [_, keep] = screen.panel.children[1].children
    keep.click()
    assert screen.panel.children == ()
    screen.buttons["delete"].click()
    screen.panel.children[1].children[0].click()
    assert filled(screen) == []
    assert "press Run" in screen.empty.value
    assert sorted(screen.runs.trash) == sorted(names)
    screen.trash_box.children[1].click()
    assert len(filled(screen)) == 1


def test_what_goes_wrong_is_said_on_the_screen(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run = Recorded(folder)
    run.end()
    screen = RunsScreen(Runs(folder))
    screen.table.picked = [run.run.id]
    screen.buttons["compare"].click()
    assert "no segment" in plain(screen.problem.value)
    run.run.manifest.unlink()
    screen.buttons["open"].click()
    assert "aiinfra runs" in plain(screen.problem.value)
