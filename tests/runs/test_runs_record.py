"""Writing and reading a run: what is written comes back, whenever and however often one looks."""

from __future__ import annotations

import json
import math
import os
import random

import pandas as pd
import pytest

from aiinfra_widgets.runs.reader import RunReader, Tail, last_segment, last_ticks
from aiinfra_widgets.runs.writer import EventWriter, SampleWriter


def test_what_is_written_is_read(made):
    made.segment(0, 0, 2)
    made.sample(0, 1, 2, 0, loss=0.123456789, sent_bytes=1e12)
    made.sample(1, 1, 2, 0, loss=float("nan"), sent_bytes=3.0)
    nodes = made.read().nodes
    assert nodes["loss"].iloc[0] == 0.123456789
    assert math.isnan(nodes["loss"].iloc[1])
    assert nodes["sent_bytes"].tolist() == [1e12, 3.0]
    assert nodes[["incarnation", "node", "tick", "nodes", "segment"]].to_numpy().tolist() == [
        [0, 0, 1, 2, 0],
        [0, 1, 1, 2, 0],
    ]
    assert nodes["t_s"].is_monotonic_increasing


def test_none_and_nan_are_not_measured_and_zero_is_a_measured_zero(made):
    made.sample(0, 1, 1, 0, loss=None, sent_bytes=0.0)
    assert math.isnan(made.read().nodes["loss"].iloc[0])
    assert made.read().nodes["sent_bytes"].iloc[0] == 0.0


def test_a_tick_is_merged_when_all_its_nodes_have_reported(made):
    made.segment(0, 0, 3)
    reader = RunReader(made.run)
    for node in (2, 0):
        made.sample(node, 1, 3, 0)
    assert reader.poll()
    assert reader.ticks.empty
    made.sample(1, 1, 3, 0)
    assert reader.poll()
    row = reader.ticks.iloc[0]
    # A step is the mean over its nodes, so that its parts add up; bytes are summed; the loss is the same everywhere.
    assert (row["tick"], row["nodes"]) == (1, 3)
    assert row["step_time_s"] == pytest.approx(0.02)
    assert row["sent_bytes"] == pytest.approx(24.0)
    assert row["loss"] == 1.0
    assert not reader.poll()


def test_looking_often_equals_looking_once(make):
    """At any moment, also in the middle of a line: the bytes of two nodes are handed out in random pieces."""
    whole, growing = make(), make()
    for segment, (first, last, nodes) in enumerate([(1, 40, 2), (41, 55, 1), (56, 90, 3)]):
        whole.segment(segment, first - 1, nodes)
        whole.ticks(first, last, nodes, segment, loss=float("nan") if segment == 1 else 0.5)
    once, often = whole.read(), RunReader(growing.run)
    files = [p for sub in ("samples", "events") for p in (whole.run.path / sub).iterdir()]
    left = {p: p.read_bytes() for p in files}
    chance = random.Random(7)
    while any(left.values()):
        path = chance.choice([p for p in files if left[p]])
        size = chance.randrange(1, 400)
        with (growing.run.path / path.parent.name / path.name).open("ab") as file:
            file.write(left[path][:size])
        left[path] = left[path][size:]
        often.poll()
    order = ["tick"]
    pd.testing.assert_frame_equal(
        often.ticks.sort_values(order, ignore_index=True),
        once.ticks.sort_values(order, ignore_index=True),
        check_dtype=False,
    )
    keys = ["tick", "node"]
    pd.testing.assert_frame_equal(
        often.nodes.sort_values(keys, ignore_index=True),
        once.nodes.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )
    assert often.events == once.events
    assert [(s.index, s.ticks, s.values) for s in often.segments()] == [
        (s.index, s.ticks, s.values) for s in once.segments()
    ]
    assert last_ticks(often) == last_ticks(once) == {0: 90, 1: 90, 2: 90}


def test_a_torn_last_line_waits_for_its_end(made):
    made.segment(0, 0, 1)
    made.ticks(1, 3, 1, 0)
    path = made.run.samples(0, 0)
    full = path.read_bytes()
    path.write_bytes(full[:-9])
    reader = RunReader(made.run)
    reader.poll()
    assert reader.ticks["tick"].tolist() == [1, 2]
    path.write_bytes(full)
    reader.poll()
    assert reader.ticks["tick"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_run_that_was_cut_off_anywhere_is_readable(made, cut):
    made.segment(0, 0, 1)
    made.ticks(1, 4, 1, 0)
    for path in (made.run.samples(0, 0), made.run.events(0, 0)):
        os.truncate(path, max(0, path.stat().st_size - cut))
    reader = made.read()
    assert set(reader.ticks["tick"]) <= {1, 2, 3, 4}
    assert len(reader.segments()) <= 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"12,0.5,1\n",
        b"x,y,z,w,1,2,3\n",
        b"5,0.1,1,0,1,2,3,4,5,6,7,8,9\n",
        b"\xff\xfe\x00\n",
        b"5,0.1,1,0,0.01abc,1,8\n",
        b",,,,,,\n",
    ],
)
def test_a_damaged_line_harms_no_other(made, garbage):
    made.segment(0, 0, 1)
    made.ticks(1, 2, 1, 0)
    with made.run.samples(0, 0).open("ab") as file:
        file.write(garbage)
    made.ticks(3, 4, 1, 0)
    reader = made.read()
    assert {1, 2, 3, 4} <= set(reader.ticks["tick"])
    assert reader.nodes["step_time_s"].dtype == float
    assert reader.segments()[0].values["step_time_s"].value == pytest.approx(0.01)


@pytest.mark.parametrize(
    "garbage", [b"{\n", b"[1]\n", b"7\n", b'{"kind": "segment"}\n', b"\xff\n", b'{"kind": "x", "t_s": 1}\n', b"null\n"]
)
def test_a_damaged_event_harms_no_other(made, garbage):
    made.segment(0, 0, 1)
    with made.run.events(0, 0).open("ab") as file:
        file.write(garbage)
    made.event(0, "paused", tick=3)
    assert [e["kind"] for e in made.read().events] == ["segment", "paused"]
    assert last_segment(made.run) == 0


def test_files_of_others_in_the_folders_are_left_out(made):
    made.segment(0, 0, 1)
    made.ticks(1, 2, 1, 0)
    for name in (
        "samples/notes.csv",
        "samples/a-b.csv",
        "events/x-y.jsonl",
        "events/README.jsonl",
        "samples/.0-0.csv.swp",
    ):
        (made.run.path / name).write_text("hello\nworld\n")
    reader = made.read()
    assert len(reader.ticks) == 2
    assert made.run.incarnations() == 1


def test_segments_over_resizes_and_incarnations(made):
    made.segment(0, 0, 2)
    made.ticks(1, 30, 2, 0)
    made.segment(1, 30, 1, cause="r1")
    made.ticks(31, 50, 1, 1)  # killed here; the checkpoint was at 40
    made.segment(2, 40, 1, incarnation=1, cause="resume")
    made.ticks(41, 60, 1, 2, incarnation=1, step_time_s=0.5)
    reader = made.read()
    assert [(s.index, s.first_tick, s.ticks, s.spec.nodes, s.cause) for s in reader.segments()] == [
        (0, 0, 30, 2, "start"), (1, 30, 20, 1, "r1"), (2, 40, 20, 1, "resume"),
    ]  # fmt: skip
    assert [s.values["step_time_s"].value for s in reader.segments()] == pytest.approx([0.015, 0.01, 0.5])
    assert reader.spec.nodes == 1
    assert last_ticks(reader) == {0: 60, 1: 30}
    assert last_segment(made.run) == 2


def test_ticks_that_are_done_again_after_a_death_are_told_in_both_segments(made):
    made.segment(0, 0, 2)
    made.ticks(1, 30, 2, 0)  # the state of step 20 is what was left
    made.segment(1, 20, 1, cause="rank-lost")
    made.ticks(21, 60, 1, 1, step_time_s=0.5)
    reader = made.read()
    assert [(s.index, s.first_tick, s.ticks) for s in reader.segments()] == [(0, 0, 30), (1, 20, 40)]
    assert [s.values["step_time_s"].value for s in reader.segments()] == pytest.approx([0.015, 0.5])
    assert reader.ticks["tick"].tolist() == [*range(1, 31), *range(21, 61)]


def test_the_last_word_of_a_node_is_of_its_newest_incarnation(made):
    for incarnation in range(12):
        made.event(0, "started", incarnation)
        made.sample(0, incarnation + 1, 1, 0, incarnation)
    assert last_ticks(made.read()) == {0: 12}
    assert made.run.incarnations() == 12


def test_a_short_segment_is_transient_and_a_long_one_leaves_out_its_warm_up(made):
    made.segment(0, 0, 1)
    made.ticks(1, 5, 1, 0, step_time_s=9.0)
    made.ticks(6, 14, 1, 0, step_time_s=1.0)
    assert made.read().segments()[0].transient
    made.ticks(15, 15, 1, 0, step_time_s=1.0)
    segment = made.read().segments()[0]
    assert not segment.transient
    value = segment.values["step_time_s"]
    assert (value.value, value.n, value.method) == (1.0, 10, "measured")


def test_what_was_never_measured_has_no_value(made):
    made.segment(0, 0, 1)
    made.ticks(1, 20, 1, 0, sent_bytes=float("nan"))
    found = made.read().segments()[0].values["sent_bytes"]
    assert (found.value, found.n) == (None, 0)


def test_a_prediction_that_was_refused_says_why(made):
    made.segment(0, 0, 1)
    assert "aiinfra calibrate" in made.read().segments()[0].refused
    made.segment(1, 5, 1, global_batch=32)
    assert made.read().segments()[1].refused == "nobody predicted this configuration before it began"


def test_events_of_all_writers_in_order_of_time(made):
    for by, kind in (("launch", "a"), (1, "b"), (0, "c"), ("launch", "d")):
        made.event(by, kind)
    events = made.read().events
    assert [e["kind"] for e in events] == ["a", "b", "c", "d"]
    assert [e["by"] for e in events] == ["launch", 1, 0, "launch"]


def test_an_event_is_json_whatever_number_it_carries(made):
    made.event(0, "evaluated", loss=float("inf"), deep={"x": [float("nan"), 1.5, "inf"]}, path=made.run.path)
    line = made.run.events(0, 0).read_text()
    found = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (found["loss"], found["deep"], found["path"]) == (None, {"x": [None, 1.5, "inf"]}, str(made.run.path))


def test_writers_append_and_never_follow_a_link(made, tmp_path):
    made.event(0, "first")
    EventWriter(made.run, 0, 0)("second")  # as after a restart of the same writer
    assert [e["kind"] for e in made.read().events] == ["first", "second"]
    target = tmp_path / "elsewhere"
    made.run.samples(0, 5).symlink_to(target)
    with pytest.raises(OSError, match="cannot open"):
        SampleWriter(made.run, 0, 5)
    assert not target.exists()


def test_files_are_private(made):
    made.event(0, "x")
    made.sample(0, 1, 1, 0)
    assert made.run.path.stat().st_mode & 0o077 == 0
    assert made.run.samples(0, 0).stat().st_mode & 0o077 == 0


def test_a_tail_gives_each_line_once_and_bears_a_file_that_is_not_there(tmp_path):
    tail = Tail(tmp_path / "log")
    assert tail.lines() == b""
    (tmp_path / "log").write_bytes(b"a\nb")
    assert (tail.lines(), tail.lines()) == (b"a\n", b"")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"c\n")
    assert tail.lines() == b"bc\n"
