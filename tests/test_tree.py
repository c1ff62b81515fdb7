"""What the tree as a whole must satisfy: small files, notebooks without outputs, links that lead on, forbidden text."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = "aiinfra_widgets"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".ipynb", ".csv", ".sh", ".js", ".css", ".html", ""}

# Each pattern with the reason that a finding prints. Split, so that this file does not find itself.
EVERYWHERE = {
    r"pypi\.o"
    r"rg|pythonho"
    r"sted|anaconda\.o"
    r"rg": "names the host of a package registry; pip's own settings decide",
    r"(?<![\w.<>-])/(?:work|ro" r"ot)/": "names a path of one machine",
    r"-----BEGIN [A-Z ]*PRIVATE KEY": "holds a private key",
}
OFFLINE = {
    r"\bcdn\.|\bcdnjs\b|jsdel"
    r"ivr|unp"
    r"kg\.com|\besm\.sh\b|skypack": "fetches from a content network; everything works offline",
    r"fonts\.(?:googleapis|gstatic)": "fetches a font",
}
#: A server that somebody else could use, or data that runs code when it is read (findings on security, S3 to S9).
UNSAFE = {
    r"token\s*=\s*(?:''|\"\")": "a server without a token",
    r"disable_check_xsrf\s*=\s*True": "a server without protection against forged requests",
    r"allow_origin\s*=\s*['\"]\*|allow[-_]websocket[-_]origin\s*=\s*\[?['\"]?\*": "a server that any page may use",
    r"\bip\s*=\s*['\"]?(?:0\.0\.0\.0|\*)|\bbind\(\(?['\"](?:0\.0\.0\.0)?['\"]": "a server on every interface",
    r"--Notebook" r"App": "options of the old notebook server, which the new one drops in silence",
    r"\bpickle\.loads?\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False|\bjoblib\.load\(": "runs code in data",
    r"\byaml\.(?:load|unsafe_load|full_load)\(": "runs code in a configuration",
    r"shell\s*=\s*True|\bos\.system\(": "hands text to a shell",
    r"verify\s*=\s*False": "switches certificates off",
}
#: Who may listen, and why it is safe. Elsewhere nothing opens a socket that somebody else could call.
LISTENERS = {
    "aiinfra_widgets/app/serve.py": "looks for a free port on loopback; its server there has a gate with a token",
    "aiinfra_widgets/experiments/serving/front.py": "the web front: loopback, and a token in every request",
    "aiinfra_widgets/experiments/serving/measure_front.py": "rank 0 for the front: a Unix socket in a folder of mode 0700",
    "aiinfra_widgets/ranks/nccl.py": "looks for a free port on loopback; it never listens there itself",
    "kernels/mpi/rank.py": "ranks of the kernel: loopback, and every message is signed",
}
LISTENING = re.compile(
    r"\.(?:bind|listen)\(|\b(?:Listener|create_server|start_server|start_unix_server|create_unix_server)\(|"
    r"\bimport (?:uvicorn|socketserver)\b|\bhttp\.server\b|\bhttpserver\b"
)
UNSAFE_PLACES = (PACKAGE, "labs", "kernels", ".ci", "Makefile", "environment.yml")


def committed() -> list[Path]:
    """Return what is or would be committed; without git, every file outside the usual litter."""
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(git, cwd=REPO, capture_output=True, text=True, check=True, timeout=60)
        files = [REPO / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        litter = {".venv", ".git", "dist", "build", "test-artifacts", "__pycache__"}
        files = [p for p in REPO.rglob("*") if not litter & set(p.relative_to(REPO).parts)]
    return [p for p in sorted(files) if p.is_file() and p.suffix in TEXT]


def offences(text: str, rules: dict[str, str]) -> list[str]:
    """Return "line: reason: the line" for every line of `text` that breaks one of the rules."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{number}: {why}: {line.strip()[:100]}" for rule, why in rules.items() if re.search(rule, line)]
    return found


def search(files: list[Path], rules: dict[str, str]) -> list[str]:
    """Return the offences of several files, each with its path."""
    return [
        f"{path.relative_to(REPO).as_posix()}:{offence}"
        for path in files
        for offence in offences(path.read_text(errors="replace"), rules)
    ]


def inside(*places: str) -> list[Path]:
    return [p for p in committed() if p.relative_to(REPO).parts[0] in places]


def test_nothing_names_a_registry_or_this_machine() -> None:
    assert search(committed(), EVERYWHERE) == []


def test_the_package_fetches_nothing() -> None:
    assert search(inside(PACKAGE, "labs", "kernels"), OFFLINE) == []


def test_no_open_server_and_no_code_in_data() -> None:
    assert search(inside(*UNSAFE_PLACES), UNSAFE) == []


def test_only_who_is_named_listens() -> None:
    """The exceptions to "the live path opens no port": loopback with a token, or a folder that nobody else may enter."""
    code = [p for p in inside(PACKAGE, "kernels", "labs") if p.suffix in {".py", ".ipynb"}]
    found = {p.relative_to(REPO).as_posix() for p in code if LISTENING.search(p.read_text())}
    assert found == set(LISTENERS)


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("pip install -i https://pypi" + ".org/simple", EVERYWHERE),
        ("open('/ro" + "ot/x')", EVERYWHERE),
        ("<script src='https://cdn" + ".bokeh.org/x.js'>", OFFLINE),
        ("c.IdentityProvider.token" + ' = ""', UNSAFE),
        ("c.ServerApp.ip" + " = '0.0.0.0'", UNSAFE),
        ("server.bind(('', 80))", UNSAFE),
        ("panel serve --allow-websocket-origin" + "=*", UNSAFE),
        ("np.load(f, allow_pickle" + "=True)", UNSAFE),
        ("c.ServerApp.disable_check_xsrf" + " = True", UNSAFE),
    ],
)
def test_a_planted_offence_is_found(line: str, rules: dict[str, str]) -> None:
    assert len(offences("fine\n" + line, rules)) == 1


@pytest.mark.parametrize("path", inside(PACKAGE), ids=lambda p: p.relative_to(REPO).as_posix())
def test_files_and_functions_stay_small(path: Path) -> None:
    if path.suffix != ".py":
        return
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES, "split the file: one file, one idea"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            code = node.body[1:] if ast.get_docstring(node) else node.body
            # One statement of any length is a table; length is a burden where there are many statements.
            lines = node.body[-1].end_lineno - code[0].lineno + 1 if len(code) > 1 else 0  # type: ignore[operator]
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted((REPO / "labs").glob("*.ipynb")), ids=lambda p: p.name)
def test_notebooks_carry_no_outputs(path: Path) -> None:
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        assert not cell.get("outputs"), f"cell {number} has outputs; clear them (the pre-commit hook does)"
        assert cell.get("execution_count") is None, f"cell {number} has an execution count"


@pytest.mark.parametrize(
    "path", [p for p in committed() if p.suffix == ".md"], ids=lambda p: p.relative_to(REPO).as_posix()
)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), f"{target} is not there"
