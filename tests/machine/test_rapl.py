"""The processor's counters on made-up powercap trees, with scripted time: exact joules, nothing counted twice."""

import time
from pathlib import Path

import pytest

from aiinfra_widgets.machine.power import best_probe
from aiinfra_widgets.machine.rapl import RaplEnergyProbe

RANGE_UJ = 262_143_328_850


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class Tree:
    """A powercap tree whose counters the test moves."""

    def __init__(self, root: Path):
        self.root = root

    def zone(self, zone: str, name: str, joule: float, *, range_uj: int | None = RANGE_UJ) -> None:
        folder = self.root / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        if range_uj:
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.set(zone, joule)

    def set(self, zone: str, joule: float) -> None:
        (self.root / zone / "energy_uj").write_text(f"{round(joule * 1e6)}\n")


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def clock():
    return Clock()


def test_one_package_exact_joules(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 1000.0)
    probe = RaplEnergyProbe(tree.root, clock)
    assert probe.available() is None
    probe.start()
    clock.now_s += 2.0
    tree.set("intel-rapl:0", 1123.456789)
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(123.456789, abs=1e-9)
    assert reading.energy_j == reading.cpu_energy_j
    assert reading.power_avg_w == pytest.approx(61.7283945)
    assert (reading.method, reading.duration_s, reading.note) == ("counter", 2.0, "")
    assert reading.gpu_energy_j is None
    assert reading.value().method == "measured"


def test_overlapping_zones_are_counted_once(tree, clock):
    """A server of two packages with everything that the kernel may show beside them."""
    zones = {
        "intel-rapl:0": ("package-0", 100.0),
        "intel-rapl:0:0": ("core", 60.0),
        "intel-rapl:0:1": ("uncore", 5.0),
        "intel-rapl:0:2": ("dram", 10.0),
        "intel-rapl:1": ("package-1", 7000.0),
        "intel-rapl:1:0": ("dram", 20.0),
        "intel-rapl:2": ("psys", 50.0),
        "intel-rapl-mmio:0": ("package-0", 100.0),
        "intel-rapl-mmio:0:0": ("dram", 10.0),
    }
    for zone, (name, joule) in zones.items():
        tree.zone(zone, name, joule)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.0
    gains = {"intel-rapl:0": 30.0, "intel-rapl:1": 40.0, "intel-rapl-mmio:0": 29.9, "intel-rapl:2": 95.0}
    gains |= {"intel-rapl:0:0": 25.0, "intel-rapl:0:1": 2.0, "intel-rapl:0:2": 3.0, "intel-rapl:1:0": 4.0}
    gains |= {"intel-rapl-mmio:0:0": 3.0}
    for zone, gain in gains.items():
        tree.set(zone, zones[zone][1] + gain)
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(70.0)
    assert reading.dram_energy_j == pytest.approx(7.0)
    assert reading.energy_j == pytest.approx(77.0)
    assert reading.method == "counter"


def test_only_the_memory_mapped_interface(tree, clock):
    tree.zone("intel-rapl-mmio:0", "package-0", 5.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1
    tree.set("intel-rapl-mmio:0", 11.0)
    assert probe.stop().cpu_energy_j == pytest.approx(6.0)


def test_wrap_around_is_undone(tree, clock):
    tree.zone("intel-rapl:0", "package-0", RANGE_UJ / 1e6 - 10.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 32.0)
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(42.0)
    assert reading.method == "counter"


def test_many_wraps_are_followed_by_peeking(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 0.0, range_uj=1_000_000_000)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    for step in range(1, 51):
        clock.now_s += 0.2
        tree.set("intel-rapl:0", step * 90.0 % 1000.0)
        reading = probe.peek()
    assert reading.cpu_energy_j == pytest.approx(50 * 90.0)
    assert (reading.method, reading.note) == ("counter", "")


def test_a_window_in_which_a_wrap_may_be_unseen_says_so(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 0.0, range_uj=1_000_000_000)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 60.0
    tree.set("intel-rapl:0", 400.0)
    reading = probe.stop()
    assert "may be unseen" in reading.note
    assert reading.method == "estimated"


def test_a_counter_that_goes_back_is_a_reset_not_an_abs(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 500.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 520.0)
    probe.peek()
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 3.0)  # driver reloaded: 3 J since
    clock.now_s += 1.0
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(23.0)
    assert reading.method == "estimated"
    assert "backwards" in reading.note
    assert "lower bound" in reading.note


@pytest.mark.parametrize("how", ["missing", "garbled"])
def test_a_file_lost_in_mid_run_leaves_what_was_known(tree, clock, how):
    tree.zone("intel-rapl:0", "package-0", 0.0)
    tree.zone("intel-rapl:1", "package-1", 900.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.5
    tree.set("intel-rapl:0", 10.0)
    tree.set("intel-rapl:1", 920.0)
    probe.peek()
    file = tree.root / "intel-rapl:1" / "energy_uj"
    file.unlink() if how == "missing" else file.write_text("n/a")
    clock.now_s += 1.5
    tree.set("intel-rapl:0", 25.0)
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(45.0)
    assert reading.method == "estimated"
    assert "package-1: cannot be read" in reading.note
    assert "1.5 s into the window" in reading.note


def refuse(monkeypatch, zone: str) -> None:
    """Take the permission away, also from root, for whom file modes mean nothing."""
    real = Path.read_text

    def read_text(self, *args, **kwargs):
        if self.name == "energy_uj" and self.parent.name == zone:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_permission_lost_and_given_back_loses_nothing(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 10.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, "intel-rapl:0")
        clock.now_s += 1.0
        lost = probe.peek()
    assert lost.method == "estimated"
    assert "no permission" in lost.note
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 60.0)
    back = probe.stop()
    assert (back.cpu_energy_j, back.method, back.note) == (pytest.approx(50.0), "counter", "")


def test_no_permission_from_the_start_is_not_available_and_not_zero(tree, clock, monkeypatch):
    tree.zone("intel-rapl:0", "package-0", 10.0)
    refuse(monkeypatch, "intel-rapl:0")
    probe = RaplEnergyProbe(tree.root, clock)
    assert "no permission" in probe.available()
    assert "administrator" in probe.available()
    probe.start()
    clock.now_s += 1.0
    reading = probe.stop()
    assert reading.cpu_energy_j is None
    assert reading.energy_j is None
    assert reading.power_avg_w is None
    assert reading.value().value is None
    meter = best_probe(gpus=(), powercap=tree.root, clock=clock)
    assert meter.name == "model"


def test_memory_alone_is_no_processor_meter(tree, clock, monkeypatch):
    tree.zone("intel-rapl:0", "package-0", 10.0)
    tree.zone("intel-rapl:0:0", "dram", 10.0)
    refuse(monkeypatch, "intel-rapl:0")
    assert "no permission" in RaplEnergyProbe(tree.root, clock).available()


def test_dies_that_mirror_the_socket_are_counted_once(tree, clock):
    for die in (0, 1):
        tree.zone(f"intel-rapl:{die}", f"package-0-die-{die}", 40_000.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 40_137.0)
    tree.set("intel-rapl:1", 40_137.004)
    reading = probe.stop()
    assert reading.cpu_energy_j == pytest.approx(137.0)
    assert "mirrors" in reading.note


def test_equal_loads_of_two_packages_are_not_taken_for_a_mirror(tree, clock):
    tree.zone("intel-rapl:0", "package-0", 40_000.0)
    tree.zone("intel-rapl:1", "package-1", 39_000.0)
    probe = RaplEnergyProbe(tree.root, clock)
    probe.start()
    clock.now_s += 1.0
    tree.set("intel-rapl:0", 40_100.0)
    tree.set("intel-rapl:1", 39_100.0)
    assert probe.stop().cpu_energy_j == pytest.approx(200.0)


def test_a_machine_without_zones_says_why(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        assert "virtual machines" in RaplEnergyProbe(root).available()


@pytest.mark.skipif(RaplEnergyProbe().available() is not None, reason=str(RaplEnergyProbe().available()))
def test_the_real_counter_is_within_reason():
    probe = RaplEnergyProbe()
    probe.start()
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        pass
    reading = probe.stop()
    assert reading.method == "counter"
    assert 0.1 < reading.power_avg_w < 3000
