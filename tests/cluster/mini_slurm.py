"""A real Slurm of several nodes on one machine, started by hand and gone without a trace: munged, slurmctld, a slurmd a node.

Needs Debian's slurmctld, slurmd, slurm-client and munge; root, or one plain user whose jobs run as that user. No systemd, no cgroups, no
database. Everything lies in one folder. A node is a slurmd of its own with its own port; all of them share this machine's cores.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DAEMONS = frozenset({"slurmstepd", "slurmd", "slurmctld", "slurmscriptd", "munged"})
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
#: Where Debian puts daemons, which is not on every user's PATH.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

#: Why some of it is there: processes are tracked without cgroups, which containers lack; `config_overrides` lets a node have more
#: processors than the machine; a folder for temporary files for each node keeps PMIx of two nodes apart; a random first job keeps
#: names in /dev/shm from coming again; a dead slurmd is noticed in seconds; and a requeued job
#: waits until its first start's credential has expired, which takes two minutes elsewhere.
CONF = """\
ClusterName=mini
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=6
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=300
InactiveLimit=0
KillWait=5
SlurmctldTimeout=10
SlurmdTimeout={slurmd_timeout_s}
JobRequeue=1
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str:
    """Return why no Slurm can be started here, or ""."""
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if lacking:
        return f"no {', '.join(lacking)}; on Debian: apt-get install slurmctld slurmd slurm-client munge"
    if not network():
        return "no network beside loopback, which ranks of different nodes need"
    return ""


def network() -> str:
    """Return the CIDR of this machine's own network, "" where there is none.

    Open MPI would try all networks of the machine, also those that other tests make and take away; and on loopback alone a third node
    cannot join two that talk to each other.
    """
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for a in addresses:
            if a.family == socket.AF_INET and name in up and not name.startswith(("lo", "aih")):
                return str(ipaddress.ip_network(f"{a.address}/{a.netmask}", strict=False))
    return ""


@dataclass
class MiniSlurm:
    """A cluster; use it as a context.

    Args:
        folder: Of its own, readable by the user; short, for a socket lies in it.
        nodes: How many slurmd.
        cpus: Of each node; they may be more than the machine has.
        slurmd_timeout_s: After which a silent node is down.
    """

    folder: Path
    nodes: int = 4
    cpus: int = 2
    slurmd_timeout_s: int = 6
    daemons: dict[str, psutil.Process] = field(default_factory=dict)

    def __enter__(self) -> MiniSlurm:
        self._configure()
        run = self.folder / "run"
        files = {
            "key-file": self.folder / "munge.key",
            "log-file": self.folder / "log" / "munged.log",
            "socket": run / "munge.sock",
        }
        files |= {"pid-file": run / "munged.pid", "seed-file": run / "munged.seed"}
        self._start("munged", ["munged", "--force", "--foreground", *(f"--{k}={v}" for k, v in files.items())])
        self._until("munged answers", lambda: (run / "munge.sock").exists())
        self._start("slurmctld", ["slurmctld", "-D", "-c", "-f", str(self.conf)])
        for number in range(1, self.nodes + 1):
            self.start_node(number)
        self.until_idle()
        return self

    def __exit__(self, *_: object) -> None:
        self.call("scancel", "--full", "--signal=KILL", f"--user={self.user}", check=False)
        self.call("scancel", f"--user={self.user}", check=False)
        for process in [*self.daemons.values(), *self._left()]:
            if process.is_running():
                process.terminate()
        psutil.wait_procs(self.daemons.values(), timeout=3)
        for process in [*self.daemons.values(), *self._left()]:  # a step's manager outlives its slurmd by design
            if process.is_running():
                process.kill()

    @property
    def conf(self) -> Path:
        """Its configuration file."""
        return self.folder / "slurm.conf"

    @property
    def user(self) -> str:
        """Whose jobs they are."""
        return getpass.getuser()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs so that sbatch and the others speak to this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": PATH}

    def call(self, *argv: str, check: bool = True, more: Mapping[str, str] | None = None) -> str:
        """Run a command of Slurm's and return what it printed."""
        done = subprocess.run(
            argv, env={**self.environment, **(more or {})}, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}\n{self._logs()}")
        return done.stdout.strip()

    def until_idle(self, seconds: float = 30.0) -> None:
        """Wait until every node is free again."""
        self._until(
            "all nodes are idle",
            lambda: self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").count("n") == self.nodes,
            seconds,
        )

    def hosts_of(self, job: str) -> list[str]:
        """Return the nodes that a job has."""
        return self.call("scontrol", "show", "hostnames", self.call("squeue", "-h", "-j", job, "-o", "%N")).split()

    def start_node(self, number: int) -> None:
        """Start a node's slurmd (again)."""
        self._start(f"n{number}", ["slurmd", "-D", "-N", f"n{number}", "-f", str(self.conf)])

    def kill_node(self, number: int) -> None:
        """Kill a node: its slurmd and everything that it started, at once, so that none can report the end of another."""
        slurmd = self.daemons[f"n{number}"]
        jobs = [p for p in self._left() if _variable(p, "SLURMD_NODENAME") == f"n{number}"]
        managers = {m for p in jobs for m in _parents(p) if m.name() == "slurmstepd"}
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in [slurmd, *managers, *slurmd.children(recursive=True), *jobs]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(process)

    def _configure(self) -> None:
        for sub in (
            "state",
            "log",
            "run",
            *(f"{kind}/n{i}" for kind in ("spool", "tmp") for i in range(1, self.nodes + 1)),
        ):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        for path in (self.folder, *self.folder.iterdir()):
            path.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        ports = _free_ports(self.nodes + 1)
        self.conf.write_text(
            CONF.format(
                first_job=1000 + secrets.randbelow(60000), host=socket.gethostname().partition(".")[0], user=getpass.getuser(),
                folder=self.folder, port=ports, first=ports + 1, last=ports + self.nodes, nodes=self.nodes, cpus=self.cpus,
                slurmd_timeout_s=self.slurmd_timeout_s,
            )
        )  # fmt: skip

    def _start(self, name: str, argv: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.daemons[name] = psutil.Process(process.pid)
        self.__dict__.setdefault("_popen", []).append(process)  # collected at the end, so that no zombie looks alive

    def _until(self, what: str, holds: object, seconds: float = 30.0) -> None:
        assert callable(holds)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if holds():
                    return
            except RuntimeError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"{what}: not after {seconds:g} s\n{self._logs()}")

    def _left(self) -> Iterator[psutil.Process]:
        """Yield step managers and job processes of this cluster: whatever carries its configuration in the environment."""
        for process in psutil.process_iter():
            if process.pid == os.getpid() or _variable(process, "SLURM_CONF") != str(self.conf):
                continue
            if _variable(process, "SLURM_JOB_ID") or process.name() in DAEMONS:
                yield process

    def _logs(self) -> str:
        return "\n".join(
            f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in sorted((self.folder / "log").glob("*"))
        )


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return process.environ().get(name, "")
    except (psutil.Error, OSError):
        return ""


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _free_ports(count: int) -> int:
    """Return the first of `count` neighbouring ports that nobody listens on."""
    for first in range(17000 + 50 * secrets.randbelow(200), 40000, 50):
        sockets = []
        try:
            for port in range(first, first + count):
                s = socket.socket()
                sockets.append(s)
                s.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no free ports")
