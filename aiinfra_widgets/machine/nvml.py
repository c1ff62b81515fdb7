"""NVIDIA's management library, as far as the lab needs it: eight calls, straight from the driver's shared library.

No package is needed beside the driver (nvidia-ml-py is a binding of the same library), nothing of CUDA is started, and
neither torch nor a sub-process is involved. Loaded on first use only.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

from ..errors import ProbeError

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
#: nvmlReturn_t that mean "this device does not have it", in nvml.h.
_NOT_SUPPORTED = 3


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """Devices by their index in the driver (physical, whatever CUDA_VISIBLE_DEVICES says).

    Source: NVML API reference, nvml.h; counters since Volta.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        """Load and initialise the library.

        Raises:
            ProbeError: No driver here, or it does not answer; with what to do.
        """
        try:
            self._lib = ctypes.CDLL(library)
        except OSError as error:
            raise ProbeError(
                f"no NVIDIA driver library {library} ({error});"
                " install the driver, or start the container with its GPUs"
            ) from error
        self._call("nvmlInit_v2")
        self._handles: dict[int, ctypes.c_void_p] = {}

    def _call(self, function: str, *args: Any) -> None:
        try:
            code = getattr(self._lib, function)(*args)
        except AttributeError as error:
            raise ProbeError(f"the NVIDIA driver here has no {function}; a newer driver is needed") from error
        if code == _NOT_SUPPORTED:
            raise ProbeError(f"{function}: not supported by this device")
        if code != 0:
            text = self._lib.nvmlErrorString
            text.restype = ctypes.c_char_p
            words = (text(ctypes.c_int(code)) or b"unknown error").decode(errors="replace")
            raise ProbeError(f"{function}: {words} (code {code}); try: nvidia-smi")

    def _handle(self, index: int) -> ctypes.c_void_p:
        if index not in self._handles:
            handle = ctypes.c_void_p()
            self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            self._handles[index] = handle
        return self._handles[index]

    def count(self) -> int:
        """Return how many devices the driver shows."""
        number = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(number))
        return number.value

    def driver(self) -> str:
        """Return the version of the driver."""
        text = ctypes.create_string_buffer(96)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(96))
        return text.value.decode(errors="replace")

    def name(self, index: int) -> str:
        """Return what the driver calls the device."""
        text = ctypes.create_string_buffer(96)
        self._call("nvmlDeviceGetName", self._handle(index), text, ctypes.c_uint(96))
        return text.value.decode(errors="replace")

    def memory_bytes(self, index: int) -> int:
        """Return the whole memory of the device."""
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", self._handle(index), ctypes.byref(memory))
        return int(memory.total)

    def energy_j(self, index: int) -> float:
        """Return the energy since the driver was loaded; refreshed about every 100 ms."""
        millijoule = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle(index), ctypes.byref(millijoule))
        return millijoule.value / 1e3

    def power_w(self, index: int) -> float:
        """Return the power: a mean over up to 1 s on newer parts, which A100 and H100 sample a quarter of the time."""
        milliwatt = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._handle(index), ctypes.byref(milliwatt))
        return milliwatt.value / 1e3

    def mig(self, index: int) -> bool:
        """Return whether the device is cut into instances; its counters then still cover all of it."""
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        try:
            self._call("nvmlDeviceGetMigMode", self._handle(index), ctypes.byref(now), ctypes.byref(pending))
        except ProbeError:
            return False
        return bool(now.value)


@cache
def nvml() -> Nvml:
    """Return the library, loaded once.

    Raises:
        ProbeError: No driver here; asked again next time, since a failure is not kept.
    """
    return Nvml()
