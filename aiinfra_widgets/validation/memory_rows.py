"""Rows of memory per accelerator, each compared with what its metric counts."""

from __future__ import annotations

from ..errors import LabError
from ..models.transformer.memory import memory_per_rank
from .rows import Row
from .training_rows import UnexpressedError, express_plan

METRICS = ("mem_per_accel_gb", "mem_peak_gb", "mem_peak_gib")


def predict_memory_row(row: Row) -> tuple[float | None, str]:
    """Return the memory of a row in its own unit, or None and why not.

    A figure "incl. CUDA context" is what the device shows, any other what the framework holds. Both count in powers of two,
    whatever they print: nvidia-smi reports MiB, and logs divide PyTorch's bytes by 1024 three times and write GB.
    """
    try:
        model, plan, _ = express_plan(row)
        found = memory_per_rank(model, plan)
    except UnexpressedError as error:
        return None, str(error)
    except LabError as error:
        return None, f"{row.where}: {error}"
    shown = found.device_bytes if "context" in row["unit"] else found.reserved_bytes
    return float(shown) / 2**30, ""
