"""Who may know whom: the layer rule of docs/architecture.md, read from the imports of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath

import pytest

PACKAGE = "aiinfra_widgets"

# The rule, as data. A layer knows the layers above it in this table (imports them), never itself and never one below.
# `machine` comes before `experiment` because the signature of Experiment.predict names Machine; `runs` comes after it
# because a record is read, and a request checked, through the Spec that it holds.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "texts"),
    ("knobs",),
    ("quantities", "palette"),
    ("machine", "models"),
    ("planning",),
    ("validation",),
    ("spec",),
    ("faults",),
    ("experiment",),
    ("runs",),
    ("bill", "comparison", "launch", "ranks", "workloads"),
    ("parallel",),
    ("summary",),
    ("claims", "experiments"),
    ("research", "course"),
    ("widgets", "reports"),
    ("app", "jupyter"),
    ("cli",),
)
#: Heavy packages, and the only files that may import them. `lazily` means inside a function.
HEAVY: dict[str, tuple[str, ...]] = {
    "torch": ("ranks/*", "workloads/*", "parallel/*", "experiments/*/measure*.py"),
    "mpi4py": ("ranks/*", "workloads/*", "parallel/*", "experiments/*/measure*.py"),
    "panel": ("app/*",),
    "bokeh": ("widgets/*", "app/*"),
    "ipywidgets": ("widgets/*",),
    "anywidget": ("widgets/*",),
    "papermill": ("reports/*",),
    "nbgrader": ("course/grader.py",),
    "pynvml": ("machine/nvml.py", "machine/power.py", "machine/devices.py"),
}
#: Inside an allowed folder, files that the kernel loads as well.
LIGHT_FILES = (
    *(
        "workloads/__init__.py",
        "workloads/catalog.py",
        "workloads/facts.py",
        "workloads/calibrated.py",
        "workloads/step_times.py",
    ),
    *("workloads/*_facts.py", "workloads/*_data.py", "ranks/__init__.py", "parallel/__init__.py", "parallel/plan.py"),
)
LAZY = ("pynvml",)
#: `models` are pure: nothing that reads, writes, waits, draws by chance or looks at the machine. A simulation from a seed
#: is as deterministic as a formula (numpy's generators, heapq as its clock), so it stays pure.
PURE = "models"
PURE_IMPORTS = {
    *("__future__", "abc", "bisect", "collections", "dataclasses", "enum", "fractions", "functools"),
    *("heapq", "itertools", "math", "numbers", "numpy", "operator", "statistics", "types", "typing"),
}

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path, package: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, dotted name, whether at module level) of every import in a file.

    `from X import a` yields `X.a`, for otherwise `from .. import widgets` would slip through; relative imports are
    resolved; `importlib.import_module("x")` and `__import__("x")` with a literal count as well.
    """
    tree = ast.parse(path.read_text(), str(path))
    later = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) or only_types(n)]
    inner = {id(n) for outer in later for n in ast.walk(outer)}
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in {"importlib.import_module", "import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value), top


def only_types(node: ast.AST) -> bool:
    """Whether `node` is an `if TYPE_CHECKING:`, whose imports never run. They are judged, but not as eager ones."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def violations(root: Path) -> list[str]:
    """Return one line for each breach of the rule in the tree whose package folder is `root`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        package = ".".join([PACKAGE, *inside.parent.parts])
        for line, name, top in imported(path, package):
            if problem := judge(inside, name, top):
                found.append(f"{inside.as_posix()}:{line}: imports {name}: {problem}")
    return found


def judge(inside: PurePath, name: str, top: bool) -> str:
    """Return why the file `inside` may not import `name`, or ""."""
    parts, me = name.split("."), inside.parts[0].removesuffix(".py")
    if parts[0] != PACKAGE:
        return judge_outside(inside, me, parts[0], top)
    if me == "__init__":
        return "the package's own __init__ imports on demand only" if top and parts[1:] != ["__version__"] else ""
    if me not in LEVEL and me != "__main__":
        return f"{me!r} has no layer; add it to LAYERS and to docs/architecture.md"
    target = parts[1] if len(parts) > 1 else ""
    if target not in LEVEL:
        return "" if target == "__version__" else "not a layer"
    if me == target:
        mine, other = inside.parts[1:2], parts[2:3]
        apart = me == "experiments" and len(inside.parts) > 2 and [*mine] != other
        return "experiments never import each other" if apart else ""
    if me == "__main__" or LEVEL[target] < LEVEL[me]:
        return ""
    return f"{me} may not know {target}"


def judge_outside(inside: PurePath, me: str, package: str, top: bool) -> str:
    """Return why the file may not import a package that is not ours, or ""."""
    if package in HEAVY:
        if any(fnmatch(inside.as_posix(), p) for p in LIGHT_FILES) or not any(
            fnmatch(inside.as_posix(), p) for p in HEAVY[package]
        ):
            return f"{package} only in {', '.join(HEAVY[package])}"
        if package in LAZY and top:
            return f"{package} only inside a function"
    if me == PURE and package not in PURE_IMPORTS:
        return f"{PURE} are pure: {package} is not in PURE_IMPORTS"
    return ""


def test_the_package_keeps_the_rule(repo: Path) -> None:
    assert violations(repo / PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        pytest.param("runs/reader.py", "from .. import widgets", "runs may not know widgets", id="parent-import"),
        pytest.param("models/ring.py", "def f():\n    import torch", "torch only in", id="heavy-inside-a-function"),
        pytest.param("experiments/training/predict.py", "from ..calibration import spec", "each other", id="siblings"),
        pytest.param("models/disk.py", "from pathlib import Path", "models are pure", id="impure-model"),
        pytest.param("launch/local.py", "from ..ranks.node import Node", "launch may not know ranks", id="same-level"),
        pytest.param("machine/power.py", "import pynvml", "only inside a function", id="not-lazy"),
        pytest.param("workloads/catalog.py", "import torch.nn as nn", "torch only in", id="light-file"),
        pytest.param(
            "cli/show.py", "import importlib\nimportlib.import_module('panel')", "panel only in", id="dynamic"
        ),
        pytest.param("__init__.py", "from .widgets.lab import Lab", "on demand", id="eager-package"),
        pytest.param("extras/new.py", "from ..errors import LabError", "has no layer", id="unknown-layer"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, code: str, says: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code + "\n")
    (found,) = violations(tmp_path)
    assert found.startswith(file + ":")
    assert says in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        pytest.param("experiments/training/measure.py", "import torch\nfrom ...ranks.node import Node", id="measure"),
        pytest.param("machine/power.py", "def f():\n    import pynvml", id="lazy"),
        pytest.param("widgets/figures/step.py", "from bokeh.plotting import figure", id="subfolder"),
        pytest.param("runs/reader.py", "from .layout import x\nfrom ..errors import LabError", id="inwards"),
        pytest.param("__init__.py", "def __getattr__(n):\n    from .widgets.lab import Lab", id="on-demand"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code + "\n")
    assert violations(tmp_path) == []


def test_the_architecture_page_states_the_same_rule(repo: Path) -> None:
    page = (repo / "docs" / "architecture.md").read_text()
    for names in LAYERS:
        assert f"| {', '.join(f'`{n}`' for n in names)} |" in page


LIGHT = [
    pytest.param("import aiinfra_widgets", id="package"),
    pytest.param("import aiinfra_widgets.experiment, aiinfra_widgets.machine.profile", id="contracts"),
    pytest.param(
        "from aiinfra_widgets.experiment import experiment, experiment_names\n"
        "assert [experiment(name) for name in experiment_names()]",
        id="every-experiment",
    ),
]


@pytest.mark.parametrize("code", LIGHT)
def test_import_stays_light(code: str) -> None:
    heavy = {*HEAVY, "pandas", "duckdb", "sklearn", "scipy", "pint", "IPython", "nbconvert", "matplotlib"}
    script = f"{code}\nimport sys\nprint(*sorted({heavy!r} & set(sys.modules)), len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *loaded, count = done.stdout.split()
    assert loaded == []
    # The bare package loads Python's own start-up and nothing else; a count does not depend on how busy the machine is.
    assert int(count) < (150 if code == "import aiinfra_widgets" else 700)
