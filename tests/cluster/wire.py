"""A wire between network namespaces in user space, for kernels that cannot delay packets: latency, rate, loss, and cuts while it runs.

Each namespace gets a TAP device; this process is the switch between them. A frame leaves a port after the port's serialisation time
(bits / rate) and arrives `delay_s` later. SIGHUP reads the settings again. Ends with its parent, and the devices end with it.

    python wire.py SETTINGS.json        {"ports": [[PID, "eth0", "10.0.0.1/24"], ...], "mtu": 1500, "delay_s": 0.001, ...}
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_CLONE_NEWNET, _TUNSETIFF, _IFF_TAP_NO_PI = 0x40000000, 0x400454CA, 0x1002
#: A port drops what does not fit behind this many bytes, as a switch does.
QUEUE_BYTES = 4 << 20
FRAMES = 64


def tap(pid: int, device: str, address: str, mtu: int) -> int:
    """Make a TAP device in the network namespace of a process and return its descriptor, opened from here."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _enter(there)
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TAP_NO_PI))
        for what in (f"addr add {address} dev {device}", f"link set {device} mtu {mtu} txqueuelen 10000 up"):
            subprocess.run(["ip", *what.split()], check=True)
    finally:
        _enter(home)
        os.close(home)
        os.close(there)
    return fd


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Wire:
    """The switch: frames wait in a queue for each port until they are due."""

    def __init__(self, settings: Path) -> None:
        self.settings = settings
        self.wish: dict[str, Any] = json.loads(settings.read_text())
        self.name = {
            tap(pid, device, address, self.wish["mtu"]): address for pid, device, address in self.wish["ports"]
        }
        self.due: dict[int, collections.deque[tuple[float, bytes]]] = {fd: collections.deque() for fd in self.name}
        self.free_s = dict.fromkeys(self.name, 0.0)
        self.held_bytes = dict.fromkeys(self.name, 0)
        self.at: dict[bytes, int] = {}  # which port a hardware address was seen at
        self.poll = select.epoll()
        for fd in self.name:
            self.poll.register(fd, select.EPOLLIN)

    def again(self, *_: object) -> None:
        """Take the settings as they are now; half-written ones are left alone."""
        with contextlib.suppress(OSError, ValueError):
            self.wish.update(json.loads(self.settings.read_text()))

    def carry(self) -> None:
        """Carry frames for ever."""
        while True:
            soonest = min((frames[0][0] for frames in self.due.values() if frames), default=None)
            wait_s = -1.0 if soonest is None else max(0.0, soonest - time.perf_counter())
            # epoll counts milliseconds: wake a little early and look again.
            ready = self.poll.poll(wait_s if wait_s < 0 else max(0.0, wait_s - 3e-4))
            for fd, _ in ready:
                self.take(fd)
            self.deliver(time.perf_counter())

    def take(self, fd: int) -> None:
        """Take what a namespace sends and queue it for whom it is."""
        now = time.perf_counter()
        for _ in range(FRAMES):
            try:
                frame = os.read(fd, 65600)
            except BlockingIOError:
                return
            to, source = frame[:6], frame[6:12]
            self.at[source] = fd
            if self.cut(fd):
                continue
            known = to in self.at and not to[0] & 1
            for port in [self.at[to]] if known else [other for other in self.name if other != fd]:
                self.queue(port, frame, now)

    def queue(self, port: int, frame: bytes, now: float) -> None:
        """Queue a frame behind what the port still has to send."""
        lost = self.wish.get("loss", 0.0) and random.random() < self.wish["loss"]
        if lost or self.cut(port) or self.held_bytes[port] + len(frame) > QUEUE_BYTES:
            return
        rate = self.wish.get("rate_bit_per_s", 0.0)
        self.free_s[port] = max(now, self.free_s[port]) + (len(frame) * 8 / rate if rate else 0.0)
        self.held_bytes[port] += len(frame)
        self.due[port].append((self.free_s[port] + self.wish.get("delay_s", 0.0), frame))

    def deliver(self, now: float) -> None:
        """Hand over every frame that is due."""
        for fd, frames in self.due.items():
            while frames and frames[0][0] <= now:
                _, frame = frames.popleft()
                self.held_bytes[fd] -= len(frame)
                with contextlib.suppress(OSError):
                    os.write(fd, frame)

    def cut(self, fd: int) -> bool:
        """Whether a port's link is cut."""
        return self.name[fd] in self.wish.get("cut", [])


if __name__ == "__main__":
    wire = Wire(Path(sys.argv[1]))
    signal.signal(signal.SIGHUP, wire.again)
    print("ready", flush=True)
    wire.carry()
