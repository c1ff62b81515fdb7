"""What is found here, on this machine and on made-up ones."""

import os
import platform
import time
from pathlib import Path

import pytest

from aiinfra_widgets.errors import ProbeError
from aiinfra_widgets.machine import devices
from aiinfra_widgets.machine.catalog import keys
from aiinfra_widgets.machine.profile import Machine, newest


class NoDriver:
    def count(self):
        raise ProbeError("no driver")


class TwoGpus:
    def count(self):
        return 2

    def name(self, index):
        return "NVIDIA H200"

    def memory_bytes(self, index):
        return 150 * 10**9

    def driver(self):
        return "575.1"

    def energy_j(self, index):
        if index == 1:
            raise ProbeError("not supported")
        return 1.0


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cores(*pairs: tuple[int, str]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": s + "\n" for i, s in pairs}


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)


def test_this_machine_is_found_fast_and_its_profile_comes_back(tmp_path):
    began = time.perf_counter()
    machine = devices.found()
    seconds = time.perf_counter() - began
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes > 2**28
    assert not machine.calibrated
    assert machine.versions["python"] == platform.python_version()
    assert Machine.from_json(machine.to_json()) == machine
    machine.save(tmp_path)
    assert newest(tmp_path, devices.host_slug()) == machine
    assert seconds < 5  # 10 ms when quiet; the limit only catches an import of torch


def test_the_host_is_stable_and_nameless_unless_asked(monkeypatch):
    monkeypatch.delenv(devices.HOST_ENV, raising=False)
    slug = devices.host_slug()
    assert slug == devices.host_slug()
    assert platform.node().lower() not in slug
    assert len(slug) == 9
    assert "-" not in slug
    monkeypatch.setenv(devices.HOST_ENV, "Room 7/PC-12")
    assert devices.host_slug() == "room_7_pc_12"


def test_hosts_differ_by_their_identity(tmp_path):
    slugs = {
        devices.host_slug(tree(tmp_path / i, {"etc/machine-id": i, "proc/cpuinfo": "model name : X"})) for i in "ab"
    }
    assert len(slugs) == 2


def test_threads_of_one_core_count_once(tmp_path, four_threads):
    root = tree(tmp_path, cores((0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")))
    machine = devices.found(root, NoDriver())
    assert (machine.cores, machine.threads_per_core) == (2, 2)
    assert machine.assumptions["vcpus_allowed"] == 4


def test_affinity_narrows_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    root = tree(tmp_path, cores((0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")))
    assert devices.found(root, NoDriver()).cores == 1


@pytest.mark.parametrize(
    ("files", "cores_now", "quota"),
    [
        pytest.param(
            {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2, 2.5, id="v2-parent"
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, 0.5, id="v2-half"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 4, None, id="v2-none"),
        pytest.param(
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/j\n3:memory:/x\n",
                "sys/fs/cgroup/cpu/j/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/j/cpu.cfs_period_us": "100000\n",
            },
            3,
            3.0,
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/docker/77\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
            None,
            id="v1-none",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/host/x\n", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1, 1.0, id="container"
        ),
    ],
)
def test_a_quota_of_the_container_narrows_the_cores(tmp_path, four_threads, files, cores_now, quota):
    root = tree(tmp_path, {**files, **cores((0, "0"), (1, "1"), (2, "2"), (3, "3"))})
    machine = devices.found(root, NoDriver())
    assert machine.cores == cores_now
    assert machine.assumptions["vcpu_quota"] == quota


@pytest.mark.parametrize(
    ("limit", "want"),
    [("1073741824", 2**30), ("max", 8 * 2**30), ("9223372036854771712", 8 * 2**30), (None, 8 * 2**30)],
)
def test_memory_is_what_the_container_may_use(tmp_path, limit, want):
    files = {"proc/meminfo": f"MemTotal:   {8 * 2**20} kB\nMemFree: 1 kB\n", "proc/self/cgroup": "0::/\n"}
    if limit:
        files["sys/fs/cgroup/memory.max"] = limit + "\n"
    assert devices.memory_bytes(tree(tmp_path, files)) == want


def test_memory_limit_of_the_older_cgroups(tmp_path):
    files = {
        "proc/meminfo": "MemTotal: 8388608 kB\n",
        "proc/self/cgroup": "4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "536870912\n",
    }
    assert devices.memory_bytes(tree(tmp_path, files)) == 2**29


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        ("vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1", "epyc-3rd-gen"),
        ("vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17", "epyc-4th-gen"),
        ("vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 33", ""),  # a desktop part
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : 4", "skylake"),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : 7", "cascade-lake"),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143", "sapphire-rapids"),
        ("CPU implementer : 0x41\nCPU part : 0xd40", "graviton3"),
        ("", ""),
    ],
)
def test_architecture_by_number_not_by_name(tmp_path, lines, want):
    cpu = devices.cpu_info(tree(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : Common KVM\n" + lines}))
    assert cpu.architecture == want


def test_every_architecture_but_the_withdrawn_one_has_watts():
    named = {name for *_, name in devices._ARCHITECTURES} | set(devices._ARM_PARTS.values()) | {"cascade-lake"}
    assert named - set(keys("cpu_power")) == {"epyc-5th-gen"}


def test_gpus_come_from_the_driver_without_torch():
    machine = devices.found(library=TwoGpus())
    assert [g.name for g in machine.gpus] == ["NVIDIA H200"] * 2
    assert [g.has_energy_counter for g in machine.gpus] == [True, False]
    assert machine.versions["nvidia_driver"] == "575.1"
    assert devices.found(library=NoDriver()).gpus == ()


def test_busy_seconds_grow_with_work():
    cpus, _ = devices.usable_cpus()
    before, began = devices.busy_seconds(cpus), time.process_time()
    while time.process_time() - began < 0.3:
        pass
    assert devices.busy_seconds(cpus) - before > 0.1
