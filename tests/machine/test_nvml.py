"""GPU energy: the probe on a recorded device, the calls on a library compiled here, both on a real GPU."""

import shutil
import subprocess

import pytest

from aiinfra_widgets.errors import ProbeError
from aiinfra_widgets.machine import devices
from aiinfra_widgets.machine.nvml import Nvml
from aiinfra_widgets.machine.nvml_energy import NvmlEnergyProbe, update_period_s


class Clock:
    def __init__(self):
        self.now_s = 10.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class Device:
    """A driver whose counter is refreshed every 100 ms, like the real ones; power follows a script."""

    def __init__(self, clock, *, gpus=1, watts=lambda t: 300.0, counter=True, power=True, mig=False):
        self.clock, self.gpus, self.watts, self.counter, self.power, self.is_mig = (
            clock,
            gpus,
            watts,
            counter,
            power,
            mig,
        )
        self.offset_j, self.broken = 1000.0, ""

    def count(self):
        return self.gpus

    def mig(self, index):
        return self.is_mig

    def energy_j(self, index):
        if not self.counter or self.broken:
            raise ProbeError(self.broken or "nvmlDeviceGetTotalEnergyConsumption: not supported by this device")
        ticks = int(round((self.clock.now_s - 10.0) / 0.1, 6))
        return self.offset_j + (index + 1) * sum(self.watts((k + 0.5) * 0.1) * 0.1 for k in range(ticks))

    def power_w(self, index):
        if not self.power:
            raise ProbeError("nvmlDeviceGetPowerUsage: not supported by this device")
        return (index + 1) * self.watts(self.clock.now_s - 10.0)


@pytest.fixture
def clock():
    return Clock()


def test_counter_over_two_devices(clock):
    probe = NvmlEnergyProbe(None, Device(clock, gpus=2), clock)
    assert probe.available() is None
    probe.start()
    clock.now_s += 5.0
    reading = probe.stop()
    assert reading.gpu_energy_j == {0: pytest.approx(1500.0), 1: pytest.approx(3000.0)}
    assert (reading.method, reading.note, reading.resolution_s) == ("counter", "", 0.1)
    assert reading.energy_j == pytest.approx(4500.0)
    assert reading.cpu_energy_j is None
    assert reading.value("power_avg_w").value == pytest.approx(900.0)


def test_only_the_devices_of_the_job(clock):
    probe = NvmlEnergyProbe([1], Device(clock, gpus=4), clock)
    probe.start()
    clock.now_s += 2.0
    assert set(probe.stop().gpu_energy_j) == {1}
    assert "no GPU 7 here; there are 4" in NvmlEnergyProbe([7], Device(clock, gpus=4), clock).available()


def test_trapezoid_and_counter_agree_within_one_percent(clock):
    def ramp(t):
        return 100.0 + 40.0 * t

    counter = NvmlEnergyProbe(None, Device(clock, watts=ramp), clock)
    sampled = NvmlEnergyProbe(None, Device(clock, watts=ramp, counter=False), clock)
    counter.start()
    sampled.start()
    for _ in range(100):
        clock.now_s += 0.1
        a, b = counter.peek(), sampled.peek()
    assert (a.method, b.method) == ("counter", "sampled")
    assert b.gpu_energy_j[0] == pytest.approx(a.gpu_energy_j[0], rel=0.01)
    assert a.gpu_energy_j[0] == pytest.approx(100 * 10 + 40 * 50, rel=0.01)
    assert "power sampled 101 times" in b.note


def test_a_short_window_is_flagged(clock):
    probe = NvmlEnergyProbe(None, Device(clock), clock)
    probe.start()
    clock.now_s += 0.9
    assert "too short" in probe.peek().note
    clock.now_s += 0.2
    assert "too short" not in probe.peek().note


def test_sampling_too_rarely_is_not_called_sampled(clock):
    probe = NvmlEnergyProbe(None, Device(clock, counter=False), clock)
    probe.start()
    clock.now_s += 5.0
    reading = probe.stop()
    assert reading.method == "estimated"
    assert "too few" in reading.note


def test_a_device_reset_is_reported_and_energy_stays_positive(clock):
    device = Device(clock)
    probe = NvmlEnergyProbe(None, device, clock)
    probe.start()
    clock.now_s += 2.0
    before = probe.peek().gpu_energy_j[0]
    device.offset_j = -599.0
    clock.now_s += 0.1
    reading = probe.stop()
    assert before == pytest.approx(600.0)
    assert reading.gpu_energy_j[0] >= before
    assert reading.method == "estimated"
    assert "reset" in reading.note


def test_a_device_lost_in_mid_run(clock):
    device = Device(clock)
    probe = NvmlEnergyProbe(None, device, clock)
    probe.start()
    clock.now_s += 2.0
    probe.peek()
    device.broken = "GPU is lost"
    clock.now_s += 2.0
    reading = probe.stop()
    assert reading.gpu_energy_j == {0: pytest.approx(600.0)}
    assert reading.method == "estimated"
    assert "GPU is lost" in reading.note


def test_instances_of_one_device_share_its_counter(clock):
    probe = NvmlEnergyProbe(None, Device(clock, mig=True), clock)
    probe.start()
    clock.now_s += 2.0
    assert "covers all of them" in probe.stop().note


def test_neither_energy_nor_power_is_not_available(clock):
    probe = NvmlEnergyProbe(None, Device(clock, counter=False, power=False), clock)
    assert "not supported" in probe.available()
    assert "no device" in NvmlEnergyProbe(None, Device(clock, gpus=0), clock).available()


def test_the_refresh_period_is_measured_not_assumed(clock):
    device = Device(clock)
    assert update_period_s(lambda: device.energy_j(0), clock=clock, sleep=clock.sleep) == pytest.approx(0.1, abs=2e-3)
    assert update_period_s(lambda: 5.0, clock=clock, sleep=clock.sleep) is None


# --- the calls themselves ---

FAKE_LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
static int devices[2] = {0, 1};
static int inits = 0;
int nvmlInit_v2(void) { inits++; return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return inits ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { if (i > 1) return 2; *d = &devices[i]; return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "575.57.08", n); return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { strncpy(s, *(int *)d ? "Tesla T4" : "NVIDIA H200", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = 150754820096ULL; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {
    if (*(int *)d) return 3;
    *mj = 12345678901234ULL; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { if (!*(int *)d) return 15; *mw = 70250; return 0; }
int nvmlDeviceGetMigMode(void *d, unsigned *now, unsigned *pending) {
    if (*(int *)d) return 3;
    *now = 1; *pending = 1; return 0; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build a stand-in for the driver's library")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "fake.c").write_text(FAKE_LIBRARY)
    built = folder / "libfake.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, folder / "fake.c"], check=True)
    return Nvml(str(built))


def test_the_calls_pass_through_the_shared_library(library):
    assert library.count() == 2
    assert library.driver() == "575.57.08"
    assert (library.name(0), library.name(1)) == ("NVIDIA H200", "Tesla T4")
    assert library.memory_bytes(0) == 150754820096
    assert library.energy_j(0) == 12345678901.234  # more than 32 bits: the pointer's type is right
    assert library.power_w(1) == 70.25
    assert (library.mig(0), library.mig(1)) == (True, False)


def test_errors_of_the_driver_are_ours(library):
    with pytest.raises(ProbeError, match="not supported"):
        library.energy_j(1)
    with pytest.raises(ProbeError, match=r"GPU is lost \(code 15\)"):
        library.power_w(0)
    with pytest.raises(ProbeError, match="code 2"):
        library.name(5)


def test_found_and_measured_through_the_library(library, clock):
    gpus = devices.found(library=library).gpus
    assert [(g.name, g.has_energy_counter) for g in gpus] == [("NVIDIA H200", True), ("Tesla T4", False)]
    probe = NvmlEnergyProbe(None, library, clock)
    assert probe.available() is None
    probe.start()
    clock.now_s += 2
    assert probe.stop().gpu_energy_j == {0: 0.0, 1: pytest.approx(140.5)}


def test_a_library_that_is_not_there_says_what_helps():
    with pytest.raises(ProbeError, match="install the driver"):
        Nvml("libno-such-driver.so.1")


@pytest.mark.gpu
def test_the_real_counter():
    import time

    probe = NvmlEnergyProbe()
    why = probe.available()
    if why is not None:
        pytest.skip(why)
    machine = devices.found()
    assert machine.gpus
    assert all(g.name and g.memory_bytes > 2**30 for g in machine.gpus)
    probe.start()
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        time.sleep(0.05)
        reading = probe.peek()
    assert reading.method in {"counter", "sampled"}
    assert all(2.0 < joule / reading.duration_s < 1500.0 for joule in reading.gpu_energy_j.values())
    print(machine.gpus, reading)
