"""Serving on real ranks: as queueing theory says, changed while it runs, and with nothing lost when ranks die."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from aiinfra_widgets.experiments.serving.desk import Outcome
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.models import mg1_wait_s, mmc_response_s, simulate_queue

#: Windows of 50 ms: a segment settles in half a second, and a second after that it is compared.
BASE = {"window_s": 0.05, "mean_service_s": 0.01, "duration_s": 600.0, "seed": 3}
S = BASE["mean_service_s"]


def start(lab, **values):
    spec = spec_of("serving", {**BASE, **values})
    reader = lab.session.launch("serving", spec, room=lab.room)
    lab.started.append(reader)
    return reader


def done(lab, **values):
    reader = start(lab, **values)
    assert lab.end(reader).state == "done", [e for e in reader.events if e["kind"] in {"error", "ranks-ended"}]
    return reader


def ask(lab, reader, changes=None, **more):
    return lab.answer(reader, lab.session.ask(reader, changes, **more).id)


def go_on(lab, reader, windows):
    lab.until(reader, lambda now: True)
    lab.ticked(reader, max(reader.ticks["tick"], default=0) + windows)


def stop(lab, reader):
    now = lab.session.stop(reader, wait_s=60)
    assert now.state == "stopped", now
    return requests(reader)


def requests(reader):
    """Every request, in the order in which they were meant to arrive."""
    reader.poll()
    return reader.records("requests").sort_values(["incarnation", "arrived_s"], ignore_index=True)


def assert_whole(rows, lost=0):
    """No request is missing but those `lost` with their desk, none is there twice, and times are in their order."""
    missing = 0
    for _, mine in rows.groupby(["incarnation", "writer"]):
        assert mine["id"].is_unique
        missing += int(mine["id"].max() - mine["id"].min()) + 1 - len(mine)
    assert missing <= lost
    assert set(rows["outcome"]) <= {int(o) for o in Outcome}
    ok = rows[rows["outcome"] == Outcome.OK]
    assert (ok["sent_s"] >= ok["arrived_s"] - 1e-6).all()
    assert (ok["started_s"] >= ok["arrived_s"] - 1e-6).all()
    assert (ok["ended_s"] >= ok["started_s"]).all()
    assert (ok["received_s"] >= ok["ended_s"] - 1e-6).all()
    assert rows[rows["outcome"] != Outcome.OK]["started_s"].isna().all()


def overlaps(value, theory, tolerance):
    """Whether a measured interval reaches what theory says, give or take its tolerance."""
    return value.low <= theory * (1 + tolerance) and value.high >= theory * (1 - tolerance)


def over_ideal(reader, segment, servers):
    """What the same requests took longer than with ideal servers, in mean services: the machine, not chance.

    The lower quartile: what every request has to bear, not what those bear who come while the machine is busy elsewhere.
    """
    rows = requests(reader)
    rows = rows[rows["segment"] == segment.index]
    came = rows["arrived_s"].to_numpy() - rows["arrived_s"].min()
    ideal = simulate_queue(came, rows["size"].to_numpy(), num_servers=servers).response_s
    took = (rows["received_s"] - rows["arrived_s"]).to_numpy()
    return float(np.nanpercentile((took - ideal)[came > 0.5], 25)) / S


# --- as theory says ---------------------------------------------------------------------------------------------------
LOADS = [(servers, load) for servers in (1, 2) for load in (0.3, 0.5, 0.7)]


@pytest.mark.slow  # tests/bench/bench_serving.py measures the same, and the labs of serving run each time
def test_exponential_services_respond_as_in_theory_over_load_and_servers(lab):
    """One run; each load, and each number of servers, is a live change of it. The last is too much.

    The seed is one whose draws are typical of each segment: what is left to differ is the machine.
    """
    reader = start(lab, nodes=1, arrival_rate_per_s=LOADS[0][1] / S, seed=196)
    for i, (servers, load) in enumerate([*LOADS[1:], (1, 1.6)], start=1):
        lab.session.ask(reader, {"nodes": servers, "arrival_rate_per_s": servers * load / S}, at_tick=60 * i)
    lab.ticked(reader, 60 * len(LOADS) + 50)
    rows = stop(lab, reader)
    assert_whole(rows)
    assert [e["kind"] for e in reader.kind("applied", "refused")] == ["applied"] * 7
    *segments, last = reader.segments()
    assert [(s.spec.nodes, s.transient) for s in segments] == [(servers, False) for servers, _ in LOADS]
    for segment, (servers, load) in zip(segments, LOADS, strict=True):
        found = segment.values["mean_response_s"]
        theory = float(mmc_response_s(servers * load / S, 1 / S, servers))
        assert (found.method, found.interval) == ("measured", True)
        assert segment.prediction.get("mean_response_s") == pytest.approx(theory, rel=0.05)
        assert overlaps(found, theory, 0.15), (servers, load, found, theory)
        assert over_ideal(reader, segment, servers) < 0.25, (servers, load)
        assert overlaps(segment.values["utilization_frac"], load, 0.15), (
            servers,
            load,
            segment.values["utilization_frac"],
        )
    # Little's law, over all of them: of one short segment the windows and the requests do not begin and end together.
    little = sum(s.values["arrived_per_s"].value * s.values["mean_wait_s"].value for s in segments)
    assert sum(s.values["queue_length"].value for s in segments) == pytest.approx(little, rel=0.25)
    assert_overloaded(last, rows[rows["segment"] == last.index])


def assert_overloaded(segment, rows):
    """A load of 160 % is called unstable before it begins; then the queue grows, and nobody reports a wait that is none."""
    assert any("Unstable: the load is 160%" in note for note in segment.prediction.notes)
    assert segment.values["utilization_frac"].value > 0.9
    ok = rows[rows["outcome"] == Outcome.OK]
    waits = (ok["started_s"] - ok["arrived_s"]).to_numpy()
    first, second, third = (part.mean() for part in np.array_split(waits, 3))
    assert 0 <= first < second < third
    left = rows["outcome"] == Outcome.UNFINISHED
    assert left.sum() > 20  # told as such, and in no mean
    assert "still waited at the end" in segment.values["mean_response_s"].how
    assert segment.values["failed_frac"].value == 0


def test_clockwork_and_very_variable_services_respond_as_in_theory(lab):
    reader = start(lab, service_scv=0.0, arrival_rate_per_s=0.6 / S, seed=137)
    lab.session.ask(reader, {"service_scv": 4.0}, at_tick=60)
    lab.ticked(reader, 160)
    assert_whole(stop(lab, reader))
    for segment, scv in zip(reader.segments(), (0.0, 4.0), strict=True):
        found, theory = segment.values["mean_response_s"], float(mg1_wait_s(0.6 / S, 1 / S, scv)) + S
        assert overlaps(found, theory, 0.20), (scv, found, theory)
        assert over_ideal(reader, segment, 1) < 0.25, scv


# --- changed while it runs --------------------------------------------------------------------------------------------
def test_every_live_change_is_acknowledged_or_refused_and_loses_nobody(lab):
    reader = start(lab, nodes=1, arrival_rate_per_s=60.0)
    go_on(lab, reader, 3)
    for changes in (
        {"nodes": 3}, {"arrival_rate_per_s": 150.0}, {"dispatch": "shortest-queue"}, {"batching": "dynamic", "max_batch": 4},
        {"dispatch": "round-robin"}, {"service_scv": 0.0}, {"nodes": 2}, {"mean_service_s": 0.02, "dispatch": "two-choices"},
        {"slow_node": 1, "slow_factor": 3.0}, {"batching": "none"}, {"queue_limit": 5, "timeout_s": 0.1, "retry_budget_frac": 0.1},
        {"nodes": 1, "slow_node": -1},
    ):  # fmt: skip
        answer = ask(lab, reader, changes)
        assert answer["kind"] == "applied", (changes, answer)
        assert changes.items() <= reader.spec.model_dump().items()
        go_on(lab, reader, 3)
    refused = ask(lab, reader, verb="kill", arguments={"server": 7})
    assert (refused["kind"], refused["reason"]) == ("refused", "kill: server is 7; allowed: 0 to 0, for 1 at work")
    refused = ask(lab, reader, verb="kill")
    assert refused["kind"] == "refused"
    assert "the only one" in refused["reason"]
    rows = stop(lab, reader)
    assert_whole(rows)
    batched = rows[rows["batch"] > 1]
    assert len(batched)
    # Those of a batch were with one server at the same time.
    assert (batched.groupby(["server", "started_s"])["ended_s"].nunique() == 1).all()
    assert {Outcome.REJECTED, Outcome.TIMED_OUT} & set(rows["outcome"])  # the last one has too much to do
    # What was counted as it came is what was written down, but for the windows that a boundary or the end cut off.
    counted = (reader.ticks["arrived_per_s"] * 0.05).sum()
    assert counted == pytest.approx(len(rows), rel=0.15)


def test_a_pause_stands_still_also_for_who_waits(lab):
    reader = start(lab, batching="fixed", max_batch=8, arrival_rate_per_s=40.0, service_scv=0.0)
    go_on(lab, reader, 20)
    assert ask(lab, reader, verb="pause")["kind"] == "applied"
    lab.until(reader, lambda now: now.state == "paused")
    begun_s = time.monotonic()
    time.sleep(1.5)
    assert ask(lab, reader, verb="resume")["kind"] == "applied"
    held_s = time.monotonic() - begun_s
    go_on(lab, reader, 30)
    rows = stop(lab, reader)
    assert_whole(rows)
    ok = rows[rows["outcome"] == Outcome.OK]
    assert (ok["received_s"] - ok["arrived_s"]).max() < held_s  # a batch fills in 0.2 s; some of them waited for that
    assert not ((rows["arrived_s"] > begun_s + 0.2) & (rows["arrived_s"] < begun_s + 1.4)).any()


def test_a_stopped_run_goes_on_where_it_was(lab):
    reader = start(lab, nodes=2, arrival_rate_per_s=100.0, duration_s=3.0)
    go_on(lab, reader, 20)
    rows = stop(lab, reader)
    assert_whole(rows)
    again = lab.session.resume(reader.run, room=lab.room)
    lab.started.append(again)
    lab.until(again, lambda now: True)
    assert lab.end(again).state == "done"
    rows = requests(again)
    assert_whole(rows)
    first, second = (rows[rows["incarnation"] == i] for i in (0, 1))
    assert second["id"].min() > first["id"].max() - 60  # counted on from the last window that every rank knew of
    # Both parts together offered what the whole run would have: 3 s of load, not 3 s each.
    assert len(rows) == pytest.approx(300, rel=0.3)


# --- the autoscaler ---------------------------------------------------------------------------------------------------
def test_a_step_of_the_load_brings_servers_and_the_same_trace_the_same_decisions(lab, tmp_path):
    rng = np.random.default_rng(5)
    times = [
        t + at
        for at, length, rate in ((0, 1.5, 30), (1.5, 2.5, 210))
        for t in sorted(rng.uniform(0, length, int(length * rate)))
    ]
    path = tmp_path / "step.csv"
    path.write_text("arrival_s\n" + "\n".join(f"{t:.6f}" for t in sorted(times)) + "\n")
    values = {
        "nodes": 1, "arrivals": "trace", "trace_file": str(path), "autoscaler": "target-utilization", "autoscaler_target": 0.7,
        "most_servers": 3, "duration_s": 4.0, "slo_s": 0.05,
    }  # fmt: skip
    decisions = []
    for _ in range(2):
        reader = done(lab, **values)
        rows = requests(reader)
        assert_whole(rows)
        assert len(rows) == pytest.approx(len(times), abs=2)
        decisions.append([(e["clock_s"], e["servers"], e["offered"]) for e in reader.kind("autoscaled")])
        assert {e["kind"] for e in reader.kind("applied", "refused")} == {"applied"}
        assert [s.spec.nodes for s in reader.segments()] == [1, *(servers for _, servers, _ in decisions[-1])]
        assert all(s.prediction is not None for s in reader.segments())  # each was foreseen
        above = [s.values["above_slo_s"].value for s in reader.segments() if "above_slo_s" in s.values]
        assert sum(above) >= 0.5  # the step was more than one server can do, until the others came
    assert decisions[0] == decisions[1]
    assert decisions[0][-1][1] == 3
    assert all(1.5 < clock_s <= 4.0 for clock_s, _, _ in decisions[0])


def test_another_rate_for_a_trace_is_refused(lab, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s\n" + "\n".join(str(i / 50) for i in range(1, 500)) + "\n")
    reader = start(lab, arrivals="trace", trace_file=str(path))
    go_on(lab, reader, 3)
    refused = ask(lab, reader, {"arrival_rate_per_s": 100.0})
    assert refused["kind"] == "refused"
    assert "a trace goes at its own pace" in refused["reason"]
    assert_whole(stop(lab, reader))


# --- deaths: each costs the pool its ranks, so they come last ---------------------------------------------------------
def pid_of(reader, node):
    return next(e["pid"] for e in reader.kind("started") if e["by"] == node)


def test_a_killed_server_loses_nobodys_request(lab):
    """Once by the verb and once by the system: both die with a request in their hands, which goes to another server."""
    reader = start(lab, nodes=3, arrival_rate_per_s=40.0, mean_service_s=0.05, service_scv=0.0)
    go_on(lab, reader, 20)
    assert ask(lab, reader, verb="kill", arguments={"server": 1})["kind"] == "applied"
    lab.until(reader, lambda now: len(reader.kind("rank-lost")) == 1)
    go_on(lab, reader, 20)
    os.kill(pid_of(reader, 3), signal.SIGKILL)
    lab.until(reader, lambda now: len(reader.kind("rank-lost")) == 2)
    go_on(lab, reader, 20)
    assert [e["lost"] for e in reader.kind("rank-lost")] == [[2], [3]]
    assert [(s.spec.nodes, s.cause) for s in reader.segments()][1:] == [(2, "rank-lost"), (1, "rank-lost")]
    rows = stop(lab, reader)
    assert_whole(rows)
    assert sorted(rows["id"]) == list(range(1, len(rows) + 1))
    assert set(rows["outcome"]) <= {Outcome.OK, Outcome.UNFINISHED}
    assert (rows["tries"] == 1).all()  # no client tried twice: the desk asked another server
    died_s = [e["t_s"] for e in reader.kind("rank-lost")]
    for at in died_s:  # somebody was being served in that moment, and got an answer all the same
        open_ = (rows["arrived_s"] < at) & ~(rows["received_s"] < at)
        assert open_.sum() >= 1


def test_when_the_desk_dies_a_server_takes_its_place_and_says_who_was_lost_until_nobody_is_left(lab):
    reader = start(lab, nodes=3, arrival_rate_per_s=100.0, mean_service_s=0.02)
    go_on(lab, reader, 20)
    os.kill(pid_of(reader, 0), signal.SIGKILL)
    lab.until(reader, lambda now: len(reader.kind("rank-lost")) == 1)
    [lost] = reader.kind("desk-lost")
    assert lost["by"] == 1
    assert "died with it" in lost["message"]
    go_on(lab, reader, 30)
    assert ask(lab, reader, {"arrival_rate_per_s": 50.0})["kind"] == "applied"  # the new desk decides, too
    go_on(lab, reader, 20)
    os.kill(pid_of(reader, 3), signal.SIGKILL)
    lab.until(reader, lambda now: len(reader.kind("rank-lost")) == 2)
    os.kill(pid_of(reader, 2), signal.SIGKILL)  # a desk without a server is of no use to anybody
    now = lab.end(reader)
    assert now.state == "failed"
    assert "1 rank is left, and this experiment needs 2" in now.message
    rows = requests(reader)
    assert_whole(rows, lost=lost["requests"] + 40)  # and those of the windows in which ranks died
    assert set(rows["writer"]) == {0, 1}
    old, new = (rows[rows["writer"] == w] for w in (0, 1))
    assert set(new["server"]) <= {-1, 0, 1}
    assert new["arrived_s"].min() > old["arrived_s"].max() - 0.2
    # Time went on: the load of the whole run, but for what was lost and the moment of the take-over.
    length_s = rows["arrived_s"].max() - rows["arrived_s"].min()
    assert len(rows) > 30 * length_s
    assert [s.cause for s in reader.segments()][1] == "rank-lost"
