"""Ranks on hosts by ssh: the host file, the command line, and runs across three network namespaces with traffic on the wire."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import netns
import pytest

from aiinfra_widgets.errors import AdmissionError, LaunchError, SpecError
from aiinfra_widgets.experiments.training import Training
from aiinfra_widgets.launch import place as places
from aiinfra_widgets.launch.calibrate import calibrate_hosts
from aiinfra_widgets.launch.hosts import Hosts, read_hosts
from aiinfra_widgets.launch.session import Session, spec_of, this_machine
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import Status, status
from aiinfra_widgets.workloads.calibrated import Calibrated
from aiinfra_widgets.workloads.catalog import facts


def on_hosts(test: Callable[..., None]) -> Callable[..., None]:
    """Mark what needs the hosts that are made here; the tests of the host file alone belong to the unit suite."""
    return pytest.mark.cluster(pytest.mark.timeout(240)(test))


TRAINING = {"workload": "digits-cnn", "nodes": 2, "steps": 1_000_000, "global_batch": 64}


def written(folder: Path, text: str) -> Path:
    path = folder / "hosts.txt"
    path.write_text(text)
    return path


def test_a_host_file_gives_names_slots_speeds_and_settings(tmp_path):
    text = "# ours\nnode1 slots=4\nnode2 slots=2 speed=0.5  # old\n\n10.0.0.3\nnetwork=10.0.0.0/24\nssh_config=/home/ana/lab\n"
    found = read_hosts(written(tmp_path, text))
    assert found == Hosts(("node1", "node2", "10.0.0.3"), (4, 2, 1), (None, 0.5, None), "10.0.0.0/24", "/home/ana/lab")
    assert (
        places.parse("hosts", {"file": str(tmp_path / "hosts.txt"), "network": "10.1.0.0/16"}).network == "10.1.0.0/16"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a;b slots=1", r":1: host: got 'a;b'; allowed: letters", id="shell"),
        pytest.param("ok\n-oProxyCommand=x", r":2: host: got '-oProxyCommand=x'", id="option"),
        pytest.param("$(id)", "host: got", id="substitution"),
        pytest.param("node1 slots=0", "slots of node1: got 0; allowed: 1 to", id="no-slot"),
        pytest.param("node1 slots=many", "slots: got 'many'; allowed: a number", id="word"),
        pytest.param("node1 slot=2", "did you mean", id="near"),
        pytest.param("node1 speed=nan", "speed of node1: got nan", id="nan"),
        pytest.param("node1\nnode1", "node1 is there twice", id="twice"),
        pytest.param("# nothing", "no host in it", id="empty"),
        pytest.param("node1\nnetwork=10.0.0.1/24", "network: got '10.0.0.1/24'", id="network"),
        pytest.param("node1\nssh_config=/a;b", "ssh_config: got '/a;b'", id="config"),
    ],
)
def test_a_host_file_that_is_wrong_says_where_and_what_is_allowed(tmp_path, text, said):
    with pytest.raises(SpecError, match=said):
        read_hosts(written(tmp_path, text))


def test_no_file_or_another_word_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(SpecError, match="not a host file that can be read"):
        read_hosts(tmp_path / "none")
    with pytest.raises(SpecError, match="--on hosts --hosts file=FILE"):
        Hosts.parse({})
    with pytest.raises(SpecError, match="did you mean"):
        Hosts.parse({"fil": "x"})


def test_more_ranks_than_slots_are_refused_with_the_most(tmp_path):
    hosts = Hosts(("a", "b"), (2, 1))
    hosts.admit(3)
    for size in (4, 0, -1, 10**9):
        with pytest.raises(AdmissionError, match=rf"got {size}; the 2 hosts .* 3 slots; allowed: 1 to 3"):
            hosts.admit(size)


def test_the_flags_of_mpiexec_never_let_ssh_ask_and_name_the_network(tmp_path):
    flags = Hosts(("a",), (2,), network="10.0.0.0/24", ssh_config="/etc/lab").mpiexec(2, tmp_path)
    agent = flags[flags.index("plm_ssh_agent") + 1]
    assert agent.startswith("ssh -F /etc/lab -o BatchMode=yes")
    assert flags[:2] == ["--hostfile", str(tmp_path / "hostfile")]
    assert flags[flags.index("btl_tcp_if_include") + 1] == flags[flags.index("prte_if_include") + 1] == "10.0.0.0/24"
    assert flags[flags.index("btl") + 1] == "self,sm,tcp"
    assert "btl_tcp_if_include" not in Hosts(("a",), (2,)).mpiexec(2, tmp_path)


def test_place_json_makes_the_same_hosts_again(tmp_path):
    asked = Hosts(("a", "b"), (2, 1), (None, 0.5), "10.0.0.0/24", "/etc/lab")
    places.keep(tmp_path, places.Placed(asked, 3))
    again = places.read(tmp_path)
    assert again is not None
    assert again.place == asked
    assert again.named() == "the 2 hosts"


def test_a_host_that_is_not_there_is_named_with_what_would_help(tmp_path):
    why = Hosts(("nowhere.invalid",), (1,)).available()
    assert why is not None
    assert "host nowhere.invalid does not answer by ssh" in why
    assert "ssh-copy-id" in why


# --- three hosts ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster() -> Iterator[netns.Hosts]:
    """Three hosts as namespaces, for all tests here."""
    if why := netns.missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="aihosts-"))
    try:
        with netns.Hosts(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def session(cluster: netns.Hosts, profile: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """One rank a host, asked from here; afterwards no rank is left on any host."""
    home = Path(tempfile.mkdtemp(prefix="aih-"))
    (home / "machines").mkdir()
    shutil.copy(profile, home / "machines")
    monkeypatch.setenv("AIINFRA_HOME", str(home))
    made = Session(place=asked(cluster))
    yield made
    made.close()
    end = time.monotonic() + 10
    while cluster.ranks() and time.monotonic() < end:
        time.sleep(0.05)
    shutil.rmtree(home, ignore_errors=True)
    assert cluster.ranks() == 0


def asked(cluster: netns.Hosts, *slots: int) -> Hosts:
    given = {"file": str(cluster.hostfile(*slots)), "network": cluster.network, "ssh_config": str(cluster.ssh_config)}
    return Hosts.parse(given)


def until(reader: RunReader, holds: Callable[[Status], Any], seconds: float = 90.0) -> Status:
    """Look until it holds, and return the status then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader.poll()
        now = status(reader)
        if holds(now):
            return now
        time.sleep(0.05)
    raise AssertionError(f"not after {seconds:g} s: {now}, {[e['kind'] for e in reader.events]}")


def passed(session: Session, reader: RunReader, cluster: netns.Hosts, least: int) -> tuple[int, dict[str, int]]:
    """Let the run take `least` steps or more; how many, and the bytes that each host sent. Both are counted while the run is paused."""
    session.ask(reader, verb="pause")
    until(reader, lambda now: now.state == "paused")
    begun, sent = reader.kind("paused")[-1]["tick"], cluster.sent_bytes()
    session.ask(reader, verb="resume")
    until(reader, lambda _: steps(reader) >= begun + least)
    pauses = len(reader.kind("paused"))
    session.ask(reader, verb="pause")
    until(reader, lambda _: len(reader.kind("paused")) > pauses)
    grown = {name: now - sent[name] for name, now in cluster.sent_bytes().items()}
    session.ask(reader, verb="resume")
    return reader.kind("paused")[-1]["tick"] - begun, grown


def steps(reader: RunReader) -> int:
    """The newest step that every node of it has reported."""
    reader.poll()
    return max(status(reader).last_tick.values(), default=0)


@on_hosts
def test_training_across_three_hosts_has_its_gradients_on_the_wire_and_is_resized_while_it_goes_on(cluster, session):
    reader = session.launch("training", spec_of("training", TRAINING), room=3)
    until(reader, lambda _: steps(reader) >= 20)
    ready = (session.pool.path / "ready").iterdir()
    assert {json.loads(path.read_text())["host"] for path in ready} == set(cluster.names)
    # A ring of n ranks sends 2 (n - 1) / n of the gradients from each; two ranks thus the whole of them, in every step.
    gradient_bytes = 4 * facts("digits-cnn").params
    done, grown = passed(session, reader, cluster, 50)
    assert sum(grown[name] >= done * gradient_bytes for name in cluster.names) == 2
    assert min(grown.values()) < gradient_bytes  # nothing passes the host that only waits
    session.ask(reader, {"nodes": 3})
    until(reader, lambda _: any(e["nodes"] == 3 for e in reader.kind("resized")))
    done, grown = passed(session, reader, cluster, 30)
    assert sum(grown.values()) >= done * 2 * (3 - 1) * gradient_bytes
    # Whichever algorithm: among three hosts the sum crosses the wire 2 (3 - 1) times.
    session.ask(reader, {"algorithm": "hierarchical"})
    until(reader, lambda _: reader.spec.algorithm == "hierarchical")
    done, grown = passed(session, reader, cluster, 30)
    assert sum(grown.values()) >= done * 2 * (3 - 1) * gradient_bytes
    with pytest.raises(AdmissionError, match="got 4; the 3 hosts"):
        session.ask(reader, {"nodes": 4})
    assert session.stop(reader, wait_s=30).state == "stopped"


@on_hosts
def test_a_host_that_sees_other_files_is_named_before_anything_starts(cluster, monkeypatch):
    """Its own mount over the folder, as a host without the shared file system has."""
    home = Path(tempfile.mkdtemp(prefix="aih-"))
    monkeypatch.setenv("AIINFRA_HOME", str(home))
    place = asked(cluster)
    assert place.available() is None
    cluster.call("node2", "mount", "-t", "tmpfs", "tmpfs", str(home))
    try:
        with pytest.raises(
            LaunchError, match=r"host node2 does not see .*; set AIINFRA_HOME to a folder that all hosts share"
        ):
            Session(place=place).launch("training", spec_of("training", TRAINING))
        assert cluster.ranks() == 0
    finally:
        cluster.call("node2", "umount", str(home))
        shutil.rmtree(home, ignore_errors=True)


@on_hosts
def test_links_between_hosts_are_measured_apart_from_links_inside_one(cluster, session):
    place = asked(cluster, 2, 1)
    cluster.shape(1e8)
    try:
        machine, _ = calibrate_hosts(place, 3.0)
    finally:
        cluster.shape(0)
    within, between = Calibrated(machine).link("within"), Calibrated(machine).link("between")
    # 100 Mbit/s are 12.5 MB/s on the wire; what is behind a full bucket passes at that, whoever else uses the cores.
    assert between.bandwidth_oneway_bytes_per_s < 12.5e6
    assert within.bandwidth_oneway_bytes_per_s > 2 * between.bandwidth_oneway_bytes_per_s
    found = this_machine(place)
    assert found == machine
    assert [h.slots for h in machine.hosts] == [2, 1]
    assert {p.at["ranks"] for p in machine.rows("allreduce")} == {2, 3}
    assert this_machine().id != machine.id
    assert [(h.origin, h.n >= 3) for h in machine.hosts] == [("measured", True)] * 2
    assert 0.5 < machine.hosts[0].speed / machine.hosts[1].speed < 2  # of the same processors


@on_hosts
def test_a_host_that_is_slowed_is_measured_slower_and_a_host_file_that_says_otherwise_is_contradicted(cluster, session):
    hostfile = Path(cluster.hostfile(1, 1))
    try:
        with cluster.throttled("node2", 0.25):
            place = asked(cluster, 1, 1)
            machine, _ = calibrate_hosts(place, 1.0)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    fast, slow = machine.hosts
    assert slow.speed < 0.6 * fast.speed
    assert slow.q25 <= slow.speed <= slow.q75
    spec = spec_of("training", {"workload": "digits-cnn", "nodes": 2})
    found = Training().predict(spec, machine)
    assert any(f"node2 {slow.speed:.2g} (measured {machine.made_at[:10]})" in note for note in found.notes)
    assert found["straggler_wait_time_s"] > 0
    hostfile.write_text("node1\nnode2 speed=1\n")  # somebody knows better: the profile stays, the speed is theirs
    given = this_machine(Hosts.parse({"file": str(hostfile)}))
    assert (given.id, given.hosts[1].speed, given.hosts[1].measured) == (machine.id, 1.0, slow.speed)
    told = f"Speed of node2: the host file says speed=1, but {slow.speed:.2g} was measured"
    assert any(note.startswith(told) for note in Training().predict(spec, given).notes)
