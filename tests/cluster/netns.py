"""Several hosts on one machine: namespaces for network, name, processes, memory segments and mounts, with an sshd in each.

Namespaces have no names: they live as long as the processes in them, and these die with this one. So nothing is left behind, whatever
happens. Each host has an `eth0` of its own; this machine has one leg in their network, as a login node has, and it goes with the hosts.
Links are veth pairs into a bridge, shaped by `tc`; where packets shall be delayed, which needs a module that many kernels
lack, they are carried by a user-space switch instead (wire.py). Hosts share this machine's files and cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("ip", "tc", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen")
#: Where Debian puts daemons, which is not on every user's PATH.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

SSHD = """\
HostKey {folder}/hostkey
AuthorizedKeysFile {folder}/id.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
SetEnv TMPDIR={folder}/tmp
"""
#: The first process of a host: its own names, its own /run, shared memory and folder for temporary files; then sshd.
INIT = """\
#!/bin/sh
set -e
hostname "$1"
mount --make-rprivate /
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs {folder}/tmp
exec {sshd} -D -e -f {folder}/sshd_config -o PidFile=none
"""
CLIENT = """\
Host *
  IdentityFile {folder}/id
  IdentitiesOnly yes
  User root
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
"""


def missing() -> str:
    """Return why no hosts can be made here, or ""."""
    if os.geteuid():
        return "several hosts on one machine need root, for namespaces"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if lacking:
        return f"no {', '.join(lacking)}; on Debian: apt-get install iproute2 openssh-server openssh-client util-linux"
    spaces = ["--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "--mount-proc"]
    tried = subprocess.run(
        ["unshare", *spaces, "ip", "link", "add", "dev", "try0", "type", "veth"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"namespaces or veth are refused here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass
class Hosts:
    """Hosts `node1`, `node2` ...; use it as a context.

    Args:
        folder: Of its own; the hosts see it too.
        count: How many.
        delay_s, rate_bit_per_s, mtu: Of every link; a delay, or `wire`, makes it the user-space switch. 0 is as fast as it goes.
        wire: Carry packets in user space in any case, so that links can be cut and changed by `live`.
    """

    folder: Path
    count: int = 3
    delay_s: float = 0.0
    rate_bit_per_s: float = 0.0
    mtu: int = 1500
    wire: bool = False
    first: dict[str, psutil.Process] = field(default_factory=dict)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Hosts:
        # A network that nobody here has; its own device name, so that two clusters can be up at once.
        self.tag = secrets.token_hex(3)
        self.subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.wire = self.wire or bool(self.delay_s)
        try:
            self._configure()
            for name in self.names:
                self._start_host(name)
            self._connect()
            if self.rate_bit_per_s and not self.wire:
                self.shape(self.rate_bit_per_s)
            self._until("sshd listens on every host", self._all_listen)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.first.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # the kernel ends everything else in that host
        for started in self._started:
            started.kill()
        for started in self._started:
            started.wait(5)
        # The kernel takes its time to remove a network that nobody is in; our leg shall be gone now.
        subprocess.run(["ip", "link", "del", f"aih-{self.tag}"], capture_output=True, check=False)

    @property
    def names(self) -> list[str]:
        """Their names, as in the host file."""
        return [f"node{i + 1}" for i in range(self.count)]

    @property
    def network(self) -> str:
        """Their network."""
        return f"{self.subnet}.0/24"

    @property
    def ssh_config(self) -> Path:
        """What `ssh -F` needs to get there."""
        return self.folder / "ssh_config"

    def hostfile(self, *slots: int) -> Path:
        """Write a host file with these slots, one number for each host (default: one each), and return its path."""
        path = self.folder / "hosts.txt"
        path.write_text(
            "".join(f"{name} slots={n}\n" for name, n in zip(self.names, slots or (1,) * self.count, strict=False))
        )
        return path

    def call(self, name: str, *argv: str) -> str:
        """Run a command on a host, as its root, and return what it printed."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.first[name].pid), "-a", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def sent_bytes(self) -> dict[str, int]:
        """Return what each host has sent through its eth0 since it was made."""
        lines = {name: self.call(name, "grep", "eth0:", "/proc/net/dev") for name in self.names}
        return {name: int(line.partition(":")[2].split()[8]) for name, line in lines.items()}

    def ranks(self) -> int:
        """Return how many of our ranks run on all hosts together."""
        count = 0
        for process in self.first.values():
            with contextlib.suppress(psutil.Error):
                count += sum("aiinfra_widgets.ranks" in p.cmdline() for p in process.children(recursive=True))
        return count

    def shape(self, rate_bit_per_s: float) -> None:
        """Limit what each host may send; 0 lifts the limit."""
        if self.wire:
            self.live(rate_bit_per_s=rate_bit_per_s)
            return
        for name in self.names:
            with contextlib.suppress(RuntimeError):
                self.call(name, "tc", "qdisc", "del", "dev", "eth0", "root")
            if rate_bit_per_s:
                bucket = "rate {:.0f}bit burst 64kb latency 100ms".format(rate_bit_per_s)  # noqa: UP032 (braces of tc's own kind)
                self.call(name, *f"tc qdisc add dev eth0 root tbf {bucket}".split())

    def live(self, **changes: object) -> None:
        """Change the user-space wire while it carries: delay_s, rate_bit_per_s, loss."""
        assert self.wire, "make the hosts with wire=True"
        wish = {**json.loads(self._settings.read_text()), **changes}
        part = self._settings.with_suffix(".part")
        part.write_text(json.dumps(wish))
        part.replace(self._settings)
        self._started[-1].send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def throttled(self, name: str, cores: float) -> Iterator[None]:
        """Give everything that a host starts meanwhile so much processor time, 0.25 for a quarter of a core, by a control group."""
        period_us = 20_000
        old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
        group = (old if old.is_dir() else new) / f"aih-{self.tag}-{name}"
        group.mkdir()
        try:
            if old.is_dir():
                (group / "cpu.cfs_period_us").write_text(str(period_us))
                (group / "cpu.cfs_quota_us").write_text(str(int(cores * period_us)))
            else:
                (group / "cpu.max").write_text(f"{int(cores * period_us)} {period_us}")
            (group / "cgroup.procs").write_text(str(self.first[name].pid))
            yield
        finally:
            for line in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    (group.parent / "cgroup.procs").write_text(line)
            group.rmdir()

    def cut(self, name: str) -> None:
        """Unplug a host; nobody is told."""
        self.call(name, "ip", "link", "set", "eth0", "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        self.call(name, "ip", "link", "set", "eth0", "up")

    def kill(self, name: str) -> None:
        """Switch a host off: everything on it ends at once."""
        self.first[name].kill()

    @property
    def _settings(self) -> Path:
        return self.folder / "wire.json"

    def _address(self, number: int) -> str:
        return f"{self.subnet}.{number}"

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "tmp").mkdir(exist_ok=True)
        for key in ("id", "hostkey"):
            if not (self.folder / key).exists():
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)], check=True
                )
        public = (self.folder / "hostkey.pub").read_text()
        hosts = [(name, self._address(i + 1)) for i, name in enumerate(self.names)]
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        (self.folder / "known_hosts").write_text("".join(f"{address},{name} {public}" for name, address in hosts))
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder))
        where = "".join(f"Host {name}\n  HostName {address}\n" for name, address in hosts)
        self.ssh_config.write_text(where + CLIENT.format(folder=self.folder))
        init = self.folder / "init"
        init.write_text(INIT.format(folder=self.folder, sshd=shutil.which("sshd", path=PATH)))
        init.chmod(0o755)

    def _start_host(self, name: str) -> None:
        argv = ["unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        shell = self._spawn(name, [*argv, str(self.folder / "init"), name])
        self._until(f"{name} starts", lambda: psutil.Process(shell.pid).children())
        self.first[name] = psutil.Process(shell.pid).children()[0]
        _in_network(self.first[name].pid, "ip link set lo up")

    def _connect(self) -> None:
        legs = [(self.first[name].pid, "eth0", f"{self._address(i + 1)}/24") for i, name in enumerate(self.names)]
        legs.append((os.getpid(), f"aih-{self.tag}", f"{self._address(254)}/24"))
        if self.wire:
            wish = {"ports": legs, "mtu": self.mtu, "delay_s": self.delay_s, "rate_bit_per_s": self.rate_bit_per_s}
            self._settings.write_text(json.dumps(wish))
            self._spawn("wire", [sys.executable, str(Path(__file__).with_name("wire.py")), str(self._settings)])
            self._until("the wire is up", lambda: "ready" in (self.folder / "wire.log").read_text())
            return
        switch = self._spawn("switch", ["unshare", "--net", "sleep", "infinity"])
        mine = os.readlink("/proc/self/ns/net")
        self._until("the switch is up", lambda: os.readlink(f"/proc/{switch.pid}/ns/net") != mine)
        _in_network(switch.pid, "ip link add br0 type bridge", "ip link set br0 up")
        for number, (pid, device, address) in enumerate(legs):
            subprocess.run(
                f"ip link add {device} mtu {self.mtu} netns {pid} type veth peer name port{number} netns {switch.pid}".split(),
                check=True,
            )
            _in_network(switch.pid, f"ip link set port{number} mtu {self.mtu} master br0 up")
            _in_network(pid, f"ip addr add {address} dev {device}", f"ip link set {device} up")

    def _spawn(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": PATH}, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _all_listen(self) -> bool:
        return all("Server listening" in (self.folder / f"{name}.log").read_text() for name in self.names)

    def _until(self, what: str, holds: object, seconds: float = 20.0) -> None:
        assert callable(holds)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if holds():
                    return
            time.sleep(0.01)
        logs = "\n".join(
            f"--- {p.name}\n{p.read_text(errors='replace')[-800:]}" for p in sorted(self.folder.glob("*.log"))
        )
        raise TimeoutError(f"{what}: not after {seconds:g} s\n{logs}")


def _in_network(pid: int, *commands: str) -> None:
    for command in commands:
        subprocess.run(["nsenter", "-t", str(pid), "-n", *command.split()], check=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":  # to look around by hand: python netns.py FOLDER [DELAY_S]
    with Hosts(Path(sys.argv[1]), 3, delay_s=float([*sys.argv, "0"][2])) as made:
        print(f"ssh -F {made.ssh_config} node1; network {made.network}; ends with Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
