"""Jupyter kernels. Their code is the top-level folder `kernels/` of the source tree; a wheel carries it here."""

from pathlib import Path

if not (Path(__file__).parent / "mpi").is_dir():
    __path__.append(str(Path(__file__).resolve().parents[2] / "kernels"))
