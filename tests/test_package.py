"""The wheel: it builds, it carries catalogs, kernels and licence, and it works without this tree."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from aiinfra_widgets import __version__


def run(argv: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)], repo)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run([*pip, "--target", str(target), str(wheel)], target)
    return target


def in_wheel(installed: Path, code: str) -> str:
    """Run `code` where the installed wheel and the dependencies are importable and the tree is not.

    `-S` keeps the link of the editable install out: it lives in a .pth file, which only the site module reads.
    """
    path = f"{installed}:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}"
    return run([sys.executable, "-S", "-c", code], installed, {"PYTHONPATH": path, "PATH": ""})


def test_the_wheel_holds_all_that_the_tree_holds(repo: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("aiinfra_widgets", ""), ("data", "aiinfra_widgets/"), ("kernels/mpi", "aiinfra_widgets/")):
        files = [p for p in (repo / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        assert files, f"{folder} is empty"
        assert not {place + p.relative_to(repo).as_posix() for p in files} - names
    assert any(n.startswith("aiinfra_widgets/data/") and n.endswith(".csv") for n in names)
    assert {n.rsplit("/", 1)[-1] for n in names if "/licenses/" in n} == {"LICENSE", "NOTICE"}
    assert not [n for n in names if n.split("/")[0] in {"tests", "labs", "docs"} or "__pycache__" in n]
    assert {"aiinfra_widgets/" + p.relative_to(repo).as_posix() for p in (repo / "labs").glob("*.ipynb")} <= names
    shipped = {n.partition(".data/data/")[2] for n in names}
    assert {
        "share/jupyter/labextensions/@aiinfra/lab/static/remoteEntry.js",
        "etc/ipython/ipython_kernel_config.json",
    } <= shipped


def test_the_installed_wheel_stands_alone(repo: Path, installed: Path) -> None:
    code = "import aiinfra_widgets as a; from importlib.metadata import version; "
    file, own, metadata = in_wheel(
        installed, code + "print(a.__file__, a.__version__, version('aiinfra-lab'), sep='\\n')"
    ).splitlines()
    assert Path(file).is_relative_to(installed)
    assert own == metadata == __version__


def test_experiments_are_found_by_their_entry_points(installed: Path) -> None:
    code = "import sys; from aiinfra_widgets.experiment import experiment, experiment_names as names; "
    code += "print(*(experiment(n).name for n in names())); print('torch' in sys.modules)"
    names, torch = in_wheel(installed, code).splitlines()
    assert {"training", "calibration"} <= set(names.split())
    assert torch == "False"


def test_catalogs_are_read_from_the_wheel(installed: Path) -> None:
    """The loader itself, not only the files: in a wheel they lie elsewhere than in the tree."""
    code = (
        "from aiinfra_widgets.machine import catalog as c; print(c.data_folder(), *(len(c.load(n)) for n in c.NAMES))"
    )
    folder, *counts = in_wheel(installed, code).split()
    assert Path(folder).is_relative_to(installed)
    assert counts
    assert all(int(n) > 0 for n in counts)


SPEC = "share/jupyter/kernels/aiinfra-mpi/kernel.json"


def test_the_mpi_kernel_comes_with_the_wheel(installed: Path) -> None:
    """Its code below the package, its kernelspec where Jupyter looks."""
    code = "import aiinfra_widgets.kernels.mpi.__main__ as k; print(k.__file__, k.rank_count(None))"
    file, ranks = in_wheel(installed, code).split()
    assert Path(file).is_relative_to(installed)
    assert ranks == "2"
    spec = json.loads((installed / SPEC).read_text())
    assert spec["argv"][2] == "aiinfra_widgets.kernels.mpi"


def test_an_editable_install_brings_the_kernelspec_too(repo: Path, tmp_path: Path) -> None:
    """`make setup` makes one: what pip would install is built here, and not installed."""
    code = f"import hatchling.build as b; b.build_editable({str(tmp_path)!r})"
    run([sys.executable, "-c", code], repo)
    (path,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert [n for n in names if n.endswith(".data/data/" + SPEC)]


def test_the_command_is_declared(installed: Path) -> None:
    (info,) = installed.glob("aiinfra_lab-*.dist-info")
    assert "aiinfra = aiinfra_widgets.cli:main" in (info / "entry_points.txt").read_text()
