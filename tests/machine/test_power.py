"""Readings, the model where there is no counter, replay, and one meter for a whole host."""

import json
import math

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import DataError, ModelInputError
from aiinfra_widgets.machine.catalog import cpu_watts, keys
from aiinfra_widgets.machine.modelled import ModelledPower
from aiinfra_widgets.machine.power import (
    EnergyReading,
    NodeEnergyProbe,
    NullEnergyProbe,
    ReplayEnergyProbe,
    best_probe,
    shares,
)
from aiinfra_widgets.quantities import QUANTITIES


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


# --- no counters at all ---


def test_without_counters_the_result_is_a_model_with_a_band(tmp_path, clock):
    meter = best_probe(gpus=(), powercap=tmp_path, clock=clock)
    assert meter.name == "model"
    assert meter.available() is None
    meter.start()
    clock.now_s += 10.0
    reading = meter.stop()
    assert reading.method == "estimated"
    assert reading.energy_j > 0
    assert math.isfinite(reading.energy_j)
    assert 0 < reading.low_j < reading.energy_j < reading.high_j
    assert "modelled" in reading.note
    value = reading.value()
    assert (value.method, value.quantity) == ("modelled", "energy_j")
    assert value.low < value.value < value.high
    assert {"energy_j", "power_avg_w"} <= set(QUANTITIES)


@pytest.mark.parametrize(("load", "want_w"), [(0.0, 4 * 0.5), (0.25, 4 * 0.875), (1.0, 4 * 2.0)])
def test_the_linear_model_by_hand(clock, load, want_w):
    busy = [100.0]
    model = ModelledPower(4, 0.5, 2.0, "by hand", lambda: busy[0], clock=clock)
    assert model.power_w(load) == pytest.approx(want_w)
    model.start()
    clock.now_s += 20.0
    busy[0] += load * 4 * 20.0
    reading = model.stop()
    assert reading.energy_j == pytest.approx(want_w * 20.0)
    assert (reading.low_j, reading.high_j) == (pytest.approx(0.6 * want_w * 20), pytest.approx(1.4 * want_w * 20))


@given(
    vcpus=st.floats(0.1, 512),
    idle=st.floats(0.01, 3),
    more=st.floats(0, 6),
    busy=st.floats(-10, 1e6),
    seconds=st.floats(1e-3, 1e5),
)
def test_the_model_stays_between_idle_and_full_power(vcpus, idle, more, busy, seconds):
    clock, done = Clock(), [0.0]
    model = ModelledPower(vcpus, idle, idle + more, "any", lambda: done[0], clock=clock)
    model.start()
    clock.now_s, done[0] = seconds, busy
    energy = model.stop().energy_j
    assert vcpus * idle * seconds * (1 - 1e-9) <= energy <= vcpus * (idle + more) * seconds * (1 + 1e-9)


def test_a_known_processor_uses_its_row(clock):
    model = ModelledPower.of("epyc-3rd-gen", 8, lambda: 0.0, clock)
    watts = cpu_watts("epyc-3rd-gen")
    assert (model.idle_w, model.busy_w) == (watts.idle_w, watts.busy_w)
    model.start()
    assert "catalog row epyc-3rd-gen" in model.stop().note


@pytest.mark.parametrize("architecture", ["", "epyc-5th-gen"])
def test_an_unknown_processor_says_so_and_its_band_covers_the_catalog(clock, architecture):
    busy = [0.0]
    model = ModelledPower.of(architecture, 1, lambda: busy[0], clock, "Some CPU")
    for load in (0.0, 1.0):
        model.start()
        clock.now_s += 100.0
        busy[0] += load * 100.0
        reading = model.stop()
        for name in keys("cpu_power"):
            watts = cpu_watts(name)
            true_j = 100.0 * (watts.idle_w + load * (watts.busy_w - watts.idle_w))
            assert reading.low_j <= true_j * (1 + 1e-9)
            assert true_j <= reading.high_j * (1 + 1e-9)
        assert "no catalog row for " + (architecture or "Some CPU") in reading.note


@pytest.mark.parametrize("args", [(0, 1, 2), (1, 2, 1), (1, -1, 2), (math.nan, 1, 2)])
def test_nonsense_watts_are_refused(args):
    with pytest.raises(ModelInputError):
        ModelledPower(*args, "x", lambda: 0.0)
    with pytest.raises(ModelInputError, match="0 to 1"):
        ModelledPower(1, 1, 2, "x", lambda: 0.0).power_w(1.5)


# --- one meter per host ---


def test_only_the_leader_of_a_host_measures(tmp_path, clock):
    meters = [best_probe(leader=rank == 0, gpus=(), powercap=tmp_path, clock=clock) for rank in range(4)]
    for meter in meters:
        meter.start()
    clock.now_s += 5.0
    readings = [meter.stop() for meter in meters]
    assert [r.energy_j is not None for r in readings] == [True, False, False, False]
    assert "leader" in readings[1].note
    assert "leader" in meters[1].available()
    assert readings[1].value().value is None


@given(st.floats(0, 1e9), st.lists(st.floats(0, 1e6), min_size=1, max_size=64))
def test_shares_of_the_ranks_add_up(energy_j, weights):
    parts = shares(energy_j, weights)
    assert len(parts) == len(weights)
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(energy_j, rel=1e-3, abs=1e-9)


def test_shares_follow_the_weights():
    assert shares(100.0, [1.0, 3.0]) == [25.0, 75.0]
    assert shares(100.0, [0.0, 0.0]) == [50.0, 50.0]
    for bad in ([], [1.0, -1.0]):
        with pytest.raises(ModelInputError):
            shares(1.0, bad)


def test_a_node_joins_its_parts_and_is_as_good_as_the_worst(clock):
    trace = [(0.0, {"gpu0": 0.0}), (10.0, {"gpu0": 3000.0})]
    node = NodeEnergyProbe(
        [ReplayEnergyProbe(trace, clock), ModelledPower(2, 1.0, 4.0, "by hand", lambda: 0.0, clock=clock)]
    )
    assert node.name == "replay+model"
    assert node.available() is None
    node.start()
    clock.now_s += 5.0
    reading = node.stop()
    assert reading.gpu_energy_j == {0: pytest.approx(1500.0)}
    assert reading.cpu_energy_j == pytest.approx(10.0)
    assert reading.energy_j == pytest.approx(1510.0)
    assert (reading.low_j, reading.high_j) == (pytest.approx(1506.0), pytest.approx(1514.0))
    assert reading.method == "estimated"
    assert reading.methods == {"gpu": "replayed", "cpu": "estimated"}
    assert "recorded trace" in reading.note
    assert "modelled" in reading.note
    with pytest.raises(ModelInputError):
        NodeEnergyProbe([])


def test_a_node_of_parts_that_cannot_measure_gives_all_reasons(clock):
    node = NodeEnergyProbe([NullEnergyProbe("no driver", clock), NullEnergyProbe("no permission", clock)])
    assert node.available() == "no driver; no permission"
    node.start()
    assert node.stop().energy_j is None


# --- readings ---


def test_none_is_not_zero():
    nothing = EnergyReading(2.0, None, "counter", None)
    assert nothing.energy_j is None
    assert nothing.power_avg_w is None
    zero = EnergyReading(2.0, {0: 0.0}, "counter", 0.1)
    assert zero.energy_j == 0.0
    assert zero.power_avg_w == 0.0
    assert EnergyReading(0.0, {0: 1.0}, "counter", 0.1).power_avg_w is None
    with pytest.raises(ModelInputError, match="power_avg_w"):
        zero.value("step_time_s")


def test_a_reading_is_plain_json():
    reading = EnergyReading(2.0, {0: 5.0, 3: 7.0}, "counter", 0.1, cpu_energy_j=1.0, methods={"gpu": "counter"})
    data = json.loads(json.dumps(reading.to_json()))
    assert data["gpu_energy_j"] == {"0": 5.0, "3": 7.0}
    assert data["energy_j"] == 13.0


@given(st.floats(1e-3, 1e12))
def test_joules_and_kwh_round_trip(joule):
    registry = pint.get_application_registry()
    reading = EnergyReading(3600.0, {0: joule}, "counter", 0.1)
    kwh = registry.Quantity(reading.energy_j, "J").to("kWh")
    assert kwh.to("J").magnitude == pytest.approx(joule)
    assert (registry.Quantity(reading.power_avg_w, "W") * registry.Quantity(1, "hour")).to(
        "kWh"
    ).magnitude == pytest.approx(kwh.magnitude)


# --- replay ---


def test_replay_interpolates_and_says_when_it_has_ended(clock):
    trace = [
        (5.0, {"gpu0": 100.0, "cpu": 0.0}),
        (6.0, {"gpu0": 200.0, "cpu": 10.0}),
        (8.0, {"gpu0": 300.0, "cpu": 50.0}),
    ]
    probe = ReplayEnergyProbe(trace, clock)
    probe.start()
    for after_s, gpu_j, cpu_j in [
        (0.0, 0.0, 0.0),
        (0.5, 50.0, 5.0),
        (1.0, 100.0, 10.0),
        (2.0, 150.0, 30.0),
        (9.0, 200.0, 50.0),
    ]:
        clock.now_s = after_s
        reading = probe.peek()
        assert reading.gpu_energy_j == {0: pytest.approx(gpu_j)}
        assert reading.cpu_energy_j == pytest.approx(cpu_j)
        assert reading.method == "replayed"
    assert "ended" in reading.note
    assert reading.resolution_s == 1.5
    assert "replayed" in reading.value().how


def test_replay_reads_a_file_and_names_the_bad_line(tmp_path, clock):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"t_s": 0, "energy_j": {"gpu0": 0}}\n{"t_s": 1, "energy_j": {"gpu0": 400}}\n')
    probe = ReplayEnergyProbe.from_file(path, clock)
    probe.start()
    clock.now_s += 0.25
    assert probe.stop().gpu_energy_j == {0: pytest.approx(100.0)}
    path.write_text('{"t_s": 0, "energy_j": {"gpu0": 0}}\n{"t_s": 1, "energ')
    with pytest.raises(DataError, match=r"trace\.jsonl:2"):
        ReplayEnergyProbe.from_file(path)
    for bad in (
        [],
        [(0.0, {"cpu": 1.0})],
        [(1.0, {"cpu": 1.0}), (0.0, {"cpu": 2.0})],
        [(0.0, {"cpu": 1}), (1.0, {"gpu0": 2})],
    ):
        with pytest.raises(DataError):
            ReplayEnergyProbe(bad)
