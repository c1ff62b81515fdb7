"""Ranks on several hosts by ssh: a host file says where, the embedded mpiexec starts one daemon a host, the supervisor stays here.

Everything else goes by files, as on one machine: so the hosts share the folder of pools and runs, and this Python, under the same
path; both are looked at before anything starts. A line of the host file is a host, by the name that ssh knows:

    node1 slots=4
    node2 slots=2 speed=0.5          # half as fast as this machine; without it what calibration measured, or 1
    network=10.0.0.0/24              # MPI listens there only; without it on every network that the hosts share
    ssh_config=/home/ana/.ssh/lab    # for ssh -F

MPI's own channels between hosts are neither encrypted nor authenticated beyond a key: use a network that only its users reach.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ..errors import AdmissionError, LaunchError, SpecError, near
from ..machine.profile import Machine
from ..texts import tr
from . import local
from .place import QueueState, check_network, network_flags

#: A host as ssh and mpiexec get it: never an option, never anything that a shell reads.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
#: mpiexec cuts the ssh command at blanks, so a path with one cannot be handed on.
_PATH = re.compile(r"[A-Za-z0-9_./~+@:,-]{1,1024}")
#: ssh never asks anybody, so it refuses a host whose key it does not know (unless a person's own ssh configuration says otherwise),
#: and gives up in time.
SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ForwardAgent=no", "ForwardX11=no")
ANSWER_S = 20.0
#: What ranks need of the environment here; mpiexec hands on nothing else.
HANDED_ON = ("AIINFRA_*", "OMP_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHONPATH")
MOST_HOSTS, MOST_SLOTS, MOST_BYTES = 1024, 1024, 2**20
#: Run on every host: sees it what was just written here, and has it this package?
LOOK = """\
import os, sys
import aiinfra_widgets
path, token = sys.argv[1:]
found = os.path.isfile(path) and open(path).read() == token
print("seen" if found or not path else "unseen", os.cpu_count())
"""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where ranks are asked for, one entry a host in each tuple.

    Attributes:
        names: As ssh knows them.
        slots: Ranks that each takes.
        speeds: Of a core, relative to this machine's profile; the model of a step waits for the slowest. None: as it was measured.
        network: CIDR that MPI may listen on; "" is every network that the hosts share.
        ssh_config: For `ssh -F`; "" is the user's own.
    """

    names: tuple[str, ...]
    slots: tuple[int, ...]
    speeds: tuple[float | None, ...] = ()
    network: str = ""
    ssh_config: str = ""

    name: ClassVar[str] = "hosts"
    keeps: ClassVar[tuple[str, ...]] = ("SSH_AUTH_SOCK",)

    def __post_init__(self) -> None:
        if not self.speeds:
            object.__setattr__(self, "speeds", (None,) * len(self.names))
        if not 1 <= len(self.names) <= MOST_HOSTS or not len(self.names) == len(self.slots) == len(self.speeds):
            raise SpecError(
                f"hosts: got {len(self.names)} names, {len(self.slots)} slots, {len(self.speeds)} speeds; "
                f"allowed: 1 to {MOST_HOSTS} of each, as many of one as of the other"
            )
        for name, slots, speed in zip(self.names, self.slots, self.speeds, strict=True):
            _check_host(name, slots, speed)
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise SpecError(f"hosts: {', '.join(sorted(twice))} is there twice; give it one line with all its slots")
        if self.ssh_config and not _PATH.fullmatch(self.ssh_config):
            raise SpecError(
                f"ssh_config: got {self.ssh_config!r}; allowed: a path of letters, digits and _ . / ~ + @ : , -"
            )
        check_network(self.network)

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Hosts:
        """Read what a person asked for: {"file": "hosts.txt"}; "network" and "ssh_config" go before what the file says.

        Raises:
            SpecError: No such word, no such file, or a line of it that is not allowed, with its number.
        """
        known = ("file", "network", "ssh_config")
        for key in given:
            if key not in known:
                raise SpecError(f"{key}: hosts are not asked for that; {near(key, known)}")
        if not given.get("file"):
            raise SpecError("hosts: a file with one host a line is needed; try: --on hosts --hosts file=FILE")
        return read_hosts(Path(given["file"]), network=given.get("network", ""), ssh_config=given.get("ssh_config", ""))

    @property
    def title(self) -> str:
        """How sentences name it."""
        return tr("the {count} hosts", count=len(self.names))

    @property
    def profiles(self) -> str:
        """See `Place`; such that no host's own name begins like it. Speeds may be given later, and their profile stays."""
        told = ",".join(f"{name}:{slots}:1" for name, slots in zip(self.names, self.slots, strict=True))
        return f"hosts-{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    def told(self, machine: Machine) -> Machine:
        """Return these hosts' profile with the speeds that the host file gives in place of those that were measured."""
        if len(machine.hosts) != len(self.names):
            return machine
        hosts = (host.told(given) for host, given in zip(machine.hosts, self.speeds, strict=True))
        return replace(machine, hosts=tuple(hosts))

    def ssh(self) -> list[str]:
        """Return the ssh command that mpiexec's daemons are started with; pure."""
        config = ["-F", self.ssh_config] if self.ssh_config else []
        return ["ssh", *config, *(word for option in SSH_OPTIONS for word in ("-o", option))]

    def available(self) -> str | None:
        """Return None where every host answers, else which one does not, in ssh's words, and what would help."""
        if not shutil.which("ssh"):
            return tr("no ssh on the PATH; install an OpenSSH client")
        try:
            launcher = local.mpiexec()
        except LaunchError as error:
            return str(error)
        if not local.is_openmpi(launcher):
            return tr("{launcher} is not Open MPI's; unset {variable}", launcher=launcher, variable=local.MPIEXEC_ENV)
        return self.look() or None

    def admit(self, size: int) -> None:
        """Refuse more ranks than there are slots."""
        most = sum(self.slots)
        if not 1 <= size <= most:
            raise AdmissionError(
                tr(
                    "ranks: got {size}; the {count} hosts of the host file have {most} slots; allowed: 1 to {most}; "
                    "ask for fewer, or add hosts or slots to the file",
                    size=size,
                    count=len(self.names),
                    most=most,
                )
            )

    def command(self, size: int, pool: Path, supervisor: list[str]) -> list[str]:
        """The supervisor stays here."""
        return supervisor

    def submit(self, size: int, pool: Path, supervisor: list[str]) -> str:
        """Look at every host, write mpiexec's host file into the pool, and leave the start to the pool.

        Raises:
            AdmissionError: More ranks than slots.
            LaunchError: A host does not answer, or sees another file system.
        """
        self.admit(size)
        if why := self.look(pool):
            raise LaunchError(why, [], hint="aiinfra doctor")
        lines = (f"{name} slots={slots}\n" for name, slots in zip(self.names, self.slots, strict=True))
        hostfile(pool).write_text("".join(lines))
        return ""

    def mpiexec(self, size: int, pool: Path) -> list[str]:
        """Return mpiexec's flags: the host file that `submit` wrote, ssh, and on which network to listen; pure.

        Ranks that wait give their core away (`mpi_yield_when_idle`): without a scheduler nobody says whether there are cores enough, and
        where there are not, an all-reduce of 4 MiB took seconds instead of a tenth of one.
        """
        flags = ["--hostfile", str(hostfile(pool)), "--prtemca", "plm_ssh_agent", " ".join(self.ssh())]
        # Every daemon is started from here: hosts need no way in to each other.
        flags += ["--prtemca", "plm_ssh_no_tree_spawn", "1"]
        flags += ["--mca", "btl", "self,sm,tcp", "--mca", "mpi_yield_when_idle", "1"]
        flags += network_flags(self.network)
        if self.network:
            flags += ["--prtemca", "prte_if_include", self.network]
        return [*flags, *(word for name in HANDED_ON for word in ("-x", name))]

    def state(self, job: str) -> QueueState:
        """There is no queue."""
        return QueueState()

    def cancel(self, job: str) -> None:
        """There is no queue."""

    def look(self, folder: Path | None = None) -> str:
        """Return which host does not answer, has not this Python, or does not see `folder`, and what would help; "" where all is well.

        All hosts are asked at once, each for at most ANSWER_S.
        """
        token, path = secrets.token_hex(16), folder / "shared" if folder else None
        if path:
            path.write_text(token)
        # ssh hands one text to a shell over there, so every word is quoted for it.
        asked = shlex.join([sys.executable, "-c", LOOK, str(path or ""), token])
        running = [
            (
                name,
                subprocess.Popen(
                    [*self.ssh(), name, asked],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                ),
            )
            for name in self.names
        ]
        end, wrong = time.monotonic() + ANSWER_S, []
        for name, process in running:
            try:
                out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = "", f"no answer in {ANSWER_S:.0f} s"
                process.wait()
            if why := _judge(name, process.returncode, out, err, folder):
                wrong.append(why)
        if path:
            path.unlink(missing_ok=True)
        return "; ".join(wrong)


def hostfile(pool: Path) -> Path:
    """Return where a pool keeps the host file of its mpiexec."""
    return pool / "hostfile"


def read_hosts(path: Path, *, network: str = "", ssh_config: str = "") -> Hosts:
    """Read a host file.

    Args:
        path: Of the file.
        network, ssh_config: Go before what the file says.

    Raises:
        SpecError: It cannot be read, or a line is not allowed; with file and line.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SpecError(f"{path}: {path.stat().st_size} bytes; a host file has at most {MOST_BYTES}")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path}: not a host file that can be read ({error}); one host a line, such as: node1 slots=4"
        ) from None
    rows: list[tuple[str, int, float | None]] = []
    settings = {"network": network, "ssh_config": ssh_config}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key, equals, value = words[0].partition("=")
        if equals and key in settings and len(words) == 1:
            settings[key] = settings[key] or value
            continue
        try:
            rows.append(_host(words))
        except SpecError as error:
            raise SpecError(f"{path}:{number}: {error}") from None
    if not rows:
        raise SpecError(f"{path}: no host in it; one host a line, such as: node1 slots=4")
    names, slots, speeds = zip(*rows, strict=True)
    return Hosts(names, slots, speeds, **settings)


def _host(words: list[str]) -> tuple[str, int, float | None]:
    """Read a line: name, slots=N, speed=X."""
    name, slots, speed = words[0], 1, None
    for word in words[1:]:
        key, _, value = word.partition("=")
        try:
            if key == "slots":
                slots = int(value)
            elif key == "speed":
                speed = float(value)
            else:
                raise SpecError(f"got {word!r}; {near(key, ('slots', 'speed'))}")
        except ValueError as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError(f"{key}: got {value!r}; allowed: a number, such as {key}=2") from None
    _check_host(name, slots, speed)
    return name, slots, speed


def _check_host(name: str, slots: int, speed: float | None) -> None:
    if not _NAME.fullmatch(name):
        raise SpecError(f"host: got {name!r}; allowed: letters, digits and . _ -, beginning with a letter or digit")
    if not 1 <= slots <= MOST_SLOTS:
        raise SpecError(f"slots of {name}: got {slots}; allowed: 1 to {MOST_SLOTS}")
    if speed is not None and not 0.001 <= speed <= 1000:
        raise SpecError(f"speed of {name}: got {speed:g}; allowed: 0.001 to 1000, relative to this machine")


def _judge(name: str, code: int | None, out: str, err: str, folder: Path | None) -> str:
    """Say what is wrong with a host, from what `look` got of it; "" where nothing is."""
    said = (err.strip().splitlines() or ["it said nothing"])[-1]
    if code == 0 and out.startswith("seen"):
        return ""
    if code == 0:
        return tr(
            "host {name} does not see {folder}, so it shares no file system with this machine; "
            "set AIINFRA_HOME to a folder that all hosts share",
            name=name,
            folder=folder,
        )
    if code == 255 or not code or code < 0:
        return tr(
            "host {name} does not answer by ssh without a password: {said}; try: ssh-copy-id {name}, and once: ssh {name}",
            name=name,
            said=said,
        )
    return tr(
        "host {name} cannot start {python} with this package: {said}; install it there under the same path",
        name=name,
        python=sys.executable,
        said=said,
    )
