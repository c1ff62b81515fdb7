"""The load: what arrives when, in a run that changes, stops, goes on; and what is said to a file that is no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiinfra_widgets.errors import DataError
from aiinfra_widgets.experiments.serving.load import Load, arrival_options, read_trace
from aiinfra_widgets.models import Arrivals


def all_due(load, until_s):
    load.fetch(until_s)
    return load.due(until_s)


def test_the_same_seed_gives_the_same_load_whatever_the_windows(spec):
    s = spec(arrival_rate_per_s=200.0, seed=4)
    whole, pieces = Load(s, 0.0), Load(s, 0.0)
    found = []
    for end in np.arange(0.1, 3.05, 0.1):
        found += all_due(pieces, float(end))
    assert found == all_due(whole, 3.0)
    assert all_due(Load(s.model_copy(update={"seed": 5}), 0.0), 3.0) != found


def test_nothing_is_due_before_its_time(spec):
    load = Load(spec(arrivals="constant", arrival_rate_per_s=10.0, service_scv=0.0, mean_service_s=0.02), 0.0)
    load.fetch(0.35)
    assert load.next_s == pytest.approx(0.1)
    assert load.due(0.05) == []
    assert load.due(0.3 + 1e-9) == [(pytest.approx(t), 0.02) for t in (0.1, 0.2, 0.3)]
    assert load.next_s == math.inf  # nothing more was fetched


def test_another_rate_begins_with_what_was_not_fetched_yet(spec):
    s = spec(arrival_rate_per_s=100.0)
    load = Load(s, 0.0)
    before = all_due(load, 10.0)
    load.change(s.changed({"arrival_rate_per_s": 400.0}))
    after = all_due(load, 20.0)
    assert len(before) == pytest.approx(1000, rel=0.1)
    assert len(after) == pytest.approx(4000, rel=0.1)
    assert min(t for t, _ in after) > 10.0 >= max(t for t, _ in before)


@pytest.mark.parametrize("scv", [0.0, 0.25, 1.0, 4.0])
def test_size_and_variability_change_with_it(spec, scv):
    s = spec(arrival_rate_per_s=2000.0)
    load = Load(s, 0.0)
    all_due(load, 1.0)
    load.change(s.changed({"mean_service_s": 0.05, "service_scv": scv}))
    sizes = np.array([size for _, size in all_due(load, 21.0)])
    assert sizes.mean() == pytest.approx(0.05, rel=0.05)
    assert sizes.var() / sizes.mean() ** 2 == pytest.approx(scv, rel=0.15, abs=1e-12)


def test_a_run_that_goes_on_does_not_offer_again_what_is_over(spec):
    s = spec(arrival_rate_per_s=50.0)
    times = [t for t, _ in all_due(Load(s, 0.0), 20.0)]
    assert [t for t, _ in all_due(Load(s, 8.0), 20.0)] == [t for t in times if t > 8.0]


def test_bursts_keep_the_mean_rate_and_are_bursts(spec):
    s = spec(arrivals="bursty", arrival_rate_per_s=100.0, burst_ratio=20.0, burst_s=0.5)
    kind, options = arrival_options(s)
    assert (kind, options["burst_length_s"]) == ("mmpp", 0.5)
    assert Arrivals(kind, 100.0, **options).scv > 5
    times = np.array([t for t, _ in all_due(Load(s, 0.0), 4000.0)])
    assert len(times) / 4000 == pytest.approx(100, rel=0.1)
    counts = np.histogram(times, bins=np.arange(0, 4000.1, 0.25))[0]
    assert counts.var() / counts.mean() > 5  # 1 for Poisson


def test_a_service_that_counts_tokens_gets_tokens(spec):
    load = Load(spec(service="gpt-tiny", new_tokens=20, arrival_rate_per_s=1000.0), 0.0)
    assert np.mean([size for _, size in all_due(load, 10.0)]) == pytest.approx(20, rel=0.05)
    assert load.size() > 0


def test_requests_from_a_web_front_are_not_made_here(spec):
    load = Load(spec(arrivals="http"), 0.0)
    assert all_due(load, 100.0) == []
    assert load.next_s == math.inf
    assert load.size() > 0


# --- traces -----------------------------------------------------------------------------------------------------------
def trace(tmp_path, text):
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path):
    assert read_trace(trace(tmp_path, b"\xef\xbb\xbfarrival_s\r\n1.5\r\n2\r\n")) == [1.5, 2.0]


def test_a_trace_is_offered_at_its_own_pace_and_then_ends(tmp_path, spec):
    path = trace(tmp_path, "user,arrival_s\na,0.5\nb,0.5\nc,2\n")
    s = spec(arrivals="trace", trace_file=path, arrival_rate_per_s=1000.0, service_scv=0.0)
    load = Load(s, 0.0)
    assert [t for t, _ in all_due(load, 1.0)] == [0.5, 0.5]
    load.change(s.changed({"mean_service_s": 0.5}))
    assert all_due(load, 1e6) == [(2.0, 0.5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrival_s\n0.1\n0.3\n0.2\n", r"trace.csv:4: arrival_s is 0.2, before the 0.3 above it; sort"),
        ("arrival_s,user\n0.1,a\n,b\n", r"trace.csv:3: arrival_s is ''; allowed: seconds from 0 on; fill it in or drop"),
        ("arrival_s,user\n0.1,a\nsoon,b\n", r"trace.csv:3: arrival_s is 'soon'"),
        ("user,arrival_s\na,0.1\nb\n", r"trace.csv:3: arrival_s is ''"),
        ("arrival_s\n-1\n", r"trace.csv:2: arrival_s is -1; allowed: seconds from 0 on"),
        ("arrival_s\nnan\n", r"trace.csv:2: arrival_s is nan"),
        ("arrival_s\n1\ninf\n", r"trace.csv:3: arrival_s is inf"),
        ("time,user\n0.1,a\n", r"trace.csv:1: no column arrival_s \(found: time, user\)"),
        ("", r"trace.csv:1: no column arrival_s \(found: nothing\)"),
        ("arrival_s\n", r"trace.csv: holds no arrivals; add lines"),
        ("arrival_s\n0\n0\n", r"trace.csv: all of the 2 arrivals are at 0; a trace needs a length"),
        (b"arrival_s\n\xff\xfe\x00\n", r"cannot read .*trace.csv"),
        (b"arrival_s\n1\x00\n", r"cannot read .*trace.csv|arrival_s is '1"),
    ],
    ids=[
        "unsorted", "missing", "word", "short-line", "negative", "nan", "infinite", "column", "empty", "no-lines", "no-length",
        "bytes", "nul",
    ],
)  # fmt: skip
def test_a_file_that_is_no_trace_is_named_with_its_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_trace(trace(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"trace_file: cannot read .*nowhere.csv: No such file"):
        read_trace(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match=r"trace_file: cannot read .*: Is a directory"):
        read_trace(str(tmp_path))
