"""The kernel Python (MPI) in JupyterLab: cells on two ranks, for one of them, an error, another number of ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from lab_driver import JupyterLab
from lab_driver import chromium as window

CELLS = [
    "print('hello of', size)",
    "%%rank 1\nprint('only here')",
    "print(comm.allreduce(rank))",
    "if rank == 1:\n    raise ValueError('no luck')",
]


@pytest.mark.mpi
@pytest.mark.timeout(240)
def test_cells_run_on_two_ranks(chromium: str, lab_home: Path, repo: Path, artifacts: Path) -> None:
    root = lab_home / "notebooks"
    root.mkdir()
    shutil.copytree(repo / "kernels" / "mpi" / "spec", lab_home / "data" / "kernels" / "aiinfra-mpi")
    metadata = {"kernelspec": {"name": "aiinfra-mpi", "display_name": "Python (MPI)", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(c) for c in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), root / "mpi.ipynb")
    metadata["aiinfra"] = {"ranks": 3}
    nbformat.write(nbformat.v4.new_notebook(cells=cells[:1], metadata=metadata), root / "three.ipynb")
    with JupyterLab(root, lab_home) as server, window(chromium, server) as page:
        page.open("mpi.ipynb")
        page.run_all()
        said = page.until(
            "the error of rank 1",
            lambda: (t := page.page.inner_text(".jp-Notebook")) and "[rank 1] failed:" in t and t,
            60,
        )
        # Equal lines are folded where they come close together, which a busy machine may prevent.
        assert "[ranks 0, 1] hello of 2" in said or all(f"[rank {r}] hello of 2" in said for r in (0, 1))
        for line in ("[rank 1] only here", "[rank 1] failed:", "ValueError: no luck"):
            assert line in said
        assert "No such comm" not in said
        page.page.screenshot(path=artifacts / "mpi-kernel-light.png")
        page.open("three.ipynb")
        page.run_all()
        page.until(
            "the ranks of the notebook's metadata",
            lambda: "hello of 3" in page.page.locator(".jp-NotebookPanel:visible").inner_text(),
            60,
        )
        assert page.external == []
        assert page.errors == []
