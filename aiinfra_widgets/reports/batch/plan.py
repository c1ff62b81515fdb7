"""What a batch file asks for: one `Job` for each notebook with one set of parameters, all checked before the first one runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from ...errors import LabError, ReportError, SpecError, near
from ...machine.limits import RANK_BYTES, limit
from ...machine.profile import Machine
from ..common import CELL_TIMEOUT_S
from ..parameters import check, effective, read_notebook
from .document import Node, read

TOP = ("title", "share_cores", "defaults", "reports")
LIMITS = ("cell_time", "wall_time", "cores", "memory")
ENTRY = ("notebook", "name", "parameters", "grid", "list", *LIMITS)
MAX_JOBS = 1000
MAX_ID_CHARS = 80
WALL_S = 3600.0
#: A kernel with the lab's widgets in it.
KERNEL_BYTES = 400 * 2**20
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {"MiB": 2.0**20, "GiB": 2.0**30, "MB": 1e6, "GB": 1e9}
ASKED_NODES = re.compile(r"\bnodes=(\d+)")
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._=+-]+")


@dataclass(frozen=True, slots=True)
class Job:
    """One report to be made.

    Attributes:
        id: Name of its folder, the same in every batch, so that two batches can be compared.
        name: What a person calls it.
        notebook: The file.
        given: Parameters in the notebook's types.
        parameters: All of them, with the defaults.
        varied: Those of them that tell the reports of one notebook apart.
        wall_s, cell_s: The longest that the whole report and one of its cells may take.
        ranks: The most MPI ranks that its parameters ask for.
        cores, memory_bytes: What it is taken to need while others run beside it.
        digest: Of the notebook and its parameters: what makes a finished report out of date.
        where: `FILE:LINE` of the entry.
    """

    id: str
    name: str
    notebook: Path
    given: Mapping[str, Any]
    parameters: Mapping[str, Any]
    varied: Mapping[str, Any]
    wall_s: float
    cell_s: float
    ranks: int
    cores: int
    memory_bytes: int
    digest: str
    where: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch file, read and checked.

    Attributes:
        path: Of the file.
        title: For the index.
        share_cores: Whether reports may run beside each other although their ranks then share cores.
        jobs: In the order of the file.
    """

    path: Path
    title: str
    share_cores: bool
    jobs: tuple[Job, ...] = field(repr=False)


def plan(path: Path, machine: Machine) -> Plan:
    """Read a batch file and every notebook that it names.

    Args:
        path: Notebooks are named relative to its folder.
        machine: Where it will run; what it cannot bear is refused here.

    Raises:
        SpecError: All that is wrong with the file, one line each with `FILE:LINE`. Nothing has run by then.
    """
    root = read(path)
    root.known(TOP, "a batch file")
    top = root.mapping("a batch file")
    if "reports" not in top:
        raise SpecError(f"{path.name}:1: there is no `reports:`; it holds one `- notebook: FILE` for each lab")
    defaults = top["defaults"] if "defaults" in top else Node({}, root.where, {})
    defaults.known(LIMITS, "defaults")
    problems: list[str] = []
    jobs: list[Job] = []
    for entry in top["reports"].items("reports"):
        try:
            jobs += _jobs(entry, defaults, path.absolute().parent, machine)
        except SpecError as error:
            problems += str(error).splitlines()
    seen: dict[str, Job] = {}
    for job in jobs:
        if job.id in seen:
            problems.append(
                f"{job.where}: a report {job.id!r} is asked for at {seen[job.id].where} already; "
                "give one of the two another `name:`"
            )
        seen.setdefault(job.id, job)
    if len(jobs) > MAX_JOBS:
        problems.append(f"{path.name}: asks for {len(jobs)} reports; at most {MAX_JOBS} in one batch; split the file")
    if problems:
        raise SpecError("\n".join(problems))
    if not jobs:
        raise SpecError(f"{top['reports'].where}: the list of reports is empty; add `- notebook: FILE`")
    title = top["title"].text("title") if "title" in top else path.stem
    share = _truth(top["share_cores"]) if "share_cores" in top else False
    return Plan(path, title, share, tuple(jobs))


def _jobs(entry: Node, defaults: Node, folder: Path, machine: Machine) -> list[Job]:
    """Return the jobs of one entry: as many as its grid or its list has members."""
    entry.known(ENTRY, "a report")
    asked = {**defaults.mapping("defaults"), **entry.mapping("a report")}
    if "notebook" not in asked:
        raise entry.error("a report without `notebook:`; name the lab's file, relative to this one")
    named = asked["notebook"].text("notebook")
    notebook = folder / Path(named).expanduser()
    if not notebook.is_file():
        beside = [p.name for p in notebook.parent.glob("*.ipynb")] if notebook.parent.is_dir() else []
        hint = near(notebook.name, beside) if beside else f"there is no notebook in {notebook.parent}"
        raise asked["notebook"].error(f"{named}: there is no such file; {hint}")
    try:
        source = read_notebook(notebook)
    except ReportError as error:
        raise asked["notebook"].error(str(error)) from error
    name = asked["name"].text("name") if "name" in asked else notebook.stem
    fixed = asked["parameters"].mapping("parameters") if "parameters" in asked else {}
    content = hashlib.sha256(notebook.read_bytes())
    made, problems = [], []
    for varied, where in _members(asked, entry):
        try:
            made.append(_job(name, notebook, source, content, fixed, varied, where, asked, machine))
        except SpecError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise SpecError("\n".join(problems))
    return made


def _members(asked: Mapping[str, Node], entry: Node) -> Iterable[tuple[dict[str, Node], str]]:
    """Yield (what differs, where it stands) for each report of an entry."""
    if "grid" in asked and "list" in asked:
        raise asked["list"].error(
            "a report with both `grid:` and `list:`; a grid takes each with each, a list as it stands; keep one"
        )
    if "list" in asked:
        members = asked["list"].items("list")
        if not members:
            raise asked["list"].error("an empty list; add `- {nodes: 2}`, or leave `list:` out")
        return [(m.mapping("a member of the list"), m.where) for m in members]
    if "grid" not in asked:
        return [({}, entry.where)]
    axes = asked["grid"].mapping("grid")
    values = {k: axis.items(f"grid, {k}") for k, axis in axes.items()}
    if empty := [k for k, v in values.items() if not v]:
        raise axes[empty[0]].error(f"grid, {empty[0]}: an empty list makes no report; add a value or leave it out")
    many = 1
    for axis in values.values():
        many *= len(axis)
    if many > MAX_JOBS:
        raise asked["grid"].error(f"the grid has {many} members; at most {MAX_JOBS} reports in one batch")
    return [
        (dict(zip(values, member, strict=True)), asked["grid"].where) for member in itertools.product(*values.values())
    ]


def _job(
    name: str,
    notebook: Path,
    source: nbformat.NotebookNode,
    content: Any,
    fixed: Mapping[str, Node],
    varied: Mapping[str, Node],
    where: str,
    asked: Mapping[str, Node],
    machine: Machine,
) -> Job:
    if twice := sorted(set(fixed) & set(varied)):
        raise SpecError(f"{where}: {twice[0]!r} stands in `parameters:` as well, at {fixed[twice[0]].where}; keep one")
    nodes = {**fixed, **varied}
    try:
        given = check(source, {k: n.plain() for k, n in nodes.items()})
    except LabError as error:
        raise SpecError("\n".join(_placed(line, nodes, where) for line in str(error).splitlines())) from error
    all_ = effective(source, given)
    ranks = _ranks(all_)
    most, why = limit(machine)
    if ranks > most:
        raise SpecError(f"{where}: asks for {ranks} ranks; this machine takes 1 to {most} ({why}); choose fewer nodes")
    cores = _whole(asked["cores"]) if "cores" in asked else ranks
    memory = round(_amount(asked["memory"], BYTES, "2 GiB")) if "memory" in asked else KERNEL_BYTES + ranks * RANK_BYTES
    if memory > machine.memory_bytes:
        raise SpecError(
            f"{where}: needs {memory / 2**30:.1f} GiB; this machine has {machine.memory_bytes / 2**30:.1f} GiB; "
            "ask for less, or run it on a larger one"
        )
    digest = content.copy()
    digest.update(json.dumps(all_, sort_keys=True, default=str).encode())
    return Job(
        id=_id(name, {k: given[k] for k in varied}),
        name=name,
        notebook=notebook,
        given=given,
        parameters=all_,
        varied={k: given[k] for k in varied},
        wall_s=_amount(asked["wall_time"], SECONDS, "10 min") if "wall_time" in asked else WALL_S,
        cell_s=_amount(asked["cell_time"], SECONDS, "5 min") if "cell_time" in asked else CELL_TIMEOUT_S,
        ranks=ranks,
        cores=cores,
        memory_bytes=memory,
        digest=digest.hexdigest(),
        where=where,
    )


def _placed(line: str, nodes: Mapping[str, Node], where: str) -> str:
    """Put the place of the parameter that a message begins with in front of it."""
    name = line.partition(":")[0]
    return f"{nodes[name].where if name in nodes else where}: {line}"


def _ranks(parameters: Mapping[str, Any]) -> int:
    """Return the most ranks that parameters ask for: `nodes`, a number or a list, and any `nodes=N` in a list of changes or plans."""
    words = [w for v in parameters.values() for w in (v if isinstance(v, list) else [v]) if isinstance(w, str)]
    asked = [int(n) for w in words for n in ASKED_NODES.findall(w)]
    nodes = parameters.get("nodes")
    return max([1, *asked, *(n for n in (nodes if isinstance(nodes, list) else [nodes]) if isinstance(n, int))])


def _id(name: str, varied: Mapping[str, Any]) -> str:
    """Return a folder's name: short, the same every night, and safe on any file system."""
    words = [name, *(f"{k}={v if not isinstance(v, list | dict) else json.dumps(v)}" for k, v in varied.items())]
    whole = "-".join(words)
    plain = NOT_IN_A_NAME.sub("_", whole).strip("._-") or "report"
    if len(plain) <= MAX_ID_CHARS:
        return plain
    return f"{plain[: MAX_ID_CHARS - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _amount(node: Node, units: Mapping[str, float], example: str) -> float:
    text = node.text("an amount")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)", text)
    if not found or (found[2] and found[2] not in units) or not float(found[1]):
        raise node.error(
            f"got {text!r}; allowed: an amount above 0 with one of {', '.join(units)}, such as {example!r}"
        )
    if not found[2] and "s" not in units:
        raise node.error(f"got {text!r} without a unit; write one of {', '.join(units)}, such as {example!r}")
    return float(found[1]) * units[found[2] or "s"]


def _whole(node: Node) -> int:
    text = node.text("cores")
    if not text.isdecimal() or not 0 <= int(text) <= 100_000:
        raise node.error(f"cores: got {text!r}; allowed: a whole number, 0 for a notebook that measures nothing")
    return int(text)


def _truth(node: Node) -> bool:
    text = node.text("share_cores").lower()
    if text not in {"true", "false", "yes", "no"}:
        raise node.error(f"share_cores: got {text!r}; allowed: true or false")
    return text in {"true", "yes"}
