"""The parameters of a notebook: what its `parameters` cell declares, and whether what was given fits, before it runs.

papermill only warns about a misspelt parameter and then runs the default; here it is an error with the near matches.
"""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..errors import LabError, ReportError, SpecError, near
from ..experiment import experiment

TAG = "parameters"
MAX_NOTEBOOK_BYTES = 64 * 1024 * 1024
TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
WORDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "text",
    "list": "a list, as JSON or Python",
    "dict": "a mapping, as JSON or Python",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name in the parameters cell.

    Attributes:
        name: As assigned.
        kind: int, float, bool, str, list or dict; "" when neither annotation nor default tells.
        default: The literal value, or None when it is an expression.
        optional: Whether None is a value.
        choices: Allowed strings of a `Literal[...]` annotation.
        help: The comment behind the assignment.
    """

    name: str
    kind: str
    default: Any
    optional: bool
    choices: tuple[str, ...]
    help: str

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        words = "one of " + ", ".join(self.choices) if self.choices else WORDS.get(self.kind, "nothing")
        return words + (" or none" if self.optional else "")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read and validate a Python notebook of format 4.

    Raises:
        ReportError: Not there, too large, not a notebook, or for another language.
    """
    try:
        if path.stat().st_size > MAX_NOTEBOOK_BYTES:
            raise ReportError(f"{path}: larger than {MAX_NOTEBOOK_BYTES} bytes; clear its outputs first")
        text = path.read_text(encoding="utf-8")
        notebook: nbformat.NotebookNode = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror or error}); allowed: a notebook file") from error
    except ReportError:
        raise
    except Exception as error:  # nbformat raises several unrelated types for one cause: this is not a notebook
        first = (str(error).splitlines() or [""])[0]
        raise ReportError(f"{path}: not a notebook of format 4 ({type(error).__name__}: {first[:200]})") from error
    spec, info = notebook.metadata.get("kernelspec", {}), notebook.metadata.get("language_info", {})
    language = info.get("name") or spec.get("language") or "python"
    if str(language).lower() not in {"python", "python3", "ipython"}:
        raise ReportError(f"{path}: a notebook in {language!r}; allowed: python")
    return notebook


def declared(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """Return the parameters by name, in the order of the cell; empty when no cell is tagged `parameters`.

    Raises:
        ReportError: Two tagged cells, or one that does not parse.
    """
    cells = [c for c in notebook.cells if c.cell_type == "code" and TAG in c.metadata.get("tags", [])]
    if not cells:
        return {}
    if len(cells) > 1:
        raise ReportError(f"{len(cells)} cells are tagged {TAG!r}; allowed: one")
    source = cells[0].source
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ReportError(
            f"the parameters cell does not parse: {error.msg} in line {error.lineno}; allowed: plain assignments"
        ) from error
    comments = dict(_comments(source))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, annotation = node.targets[0], None
        elif isinstance(node, ast.AnnAssign):
            target, annotation = node.target, node.annotation
        else:
            continue
        if isinstance(target, ast.Name) and node.value is not None:
            found[target.id] = _parameter(target.id, annotation, node.value, comments.get(node.end_lineno or 0, ""))
    return found


def check(notebook: nbformat.NotebookNode, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` in the types of the notebook's defaults; strings are converted.

    A notebook whose metadata names its experiment (`metadata.aiinfra.experiment`) is also checked against that Spec, so
    that ranges, choices and units ("10 Gbit/s") are those of the controls and of the command line.

    Raises:
        ReportError: One line for each wrong parameter: name, value seen, what is allowed. Nothing has run by then.
    """
    known = declared(notebook)
    if given and not known:
        raise ReportError(
            f"parameters {', '.join(map(repr, given))} given to a notebook without parameters; "
            f"tag the cell that assigns its defaults {TAG!r}"
        )
    spec = _spec_of(notebook)
    knobs = spec.knobs() if spec else {}
    problems: list[str] = []
    clean: dict[str, Any] = {}
    for name, value in given.items():
        try:
            if name not in known:
                raise ReportError(f"{name}: no such parameter; {near(name, known)}")
            typed_by_spec = isinstance(value, str) and name in knobs
            clean[name] = knobs[name].parse(value) if typed_by_spec else _convert(known[name], value)
        except (ReportError, SpecError) as error:
            problems.append(str(error))
    if spec:
        defaults = {n: p.default for n, p in known.items() if n in knobs and p.default is not None and n not in given}
        try:
            made = spec.make({**defaults, **{n: v for n, v in clean.items() if n in knobs}})
            clean.update({n: getattr(made, n) for n in clean if n in knobs})
        except SpecError as error:
            problems += str(error).splitlines()
    if problems:
        raise ReportError("\n".join(dict.fromkeys(problems)))
    return clean


def effective(notebook: nbformat.NotebookNode, clean: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter with the value the notebook runs with; an expression's default is None."""
    return {name: clean.get(name, p.default) for name, p in declared(notebook).items()}


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ").strip()


def _parameter(name: str, annotation: ast.expr | None, value: ast.expr, help: str) -> Parameter:
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        default = None
    kind, optional, choices = _annotated(annotation)
    if not kind and default is not None:
        kind = type(default).__name__
    kind = {"tuple": "list", "set": "list"}.get(kind, kind)
    is_none = isinstance(value, ast.Constant) and value.value is None
    return Parameter(name, kind if kind in WORDS else "", default, optional or is_none, choices, help)


def _annotated(node: ast.expr | None) -> tuple[str, bool, tuple[str, ...]]:
    """Return (kind, may be None, choices) of an annotation; only the forms that a parameters cell needs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts = [_annotated(node.left), _annotated(node.right)]
        kind, _, choices = next((p for p in parts if p[0]), ("", False, ()))
        return kind, any(p[1] for p in parts), choices
    if isinstance(node, ast.Constant) and node.value is None:
        return "", True, ()
    if isinstance(node, ast.Subscript):
        base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if base == "Optional":
            kind, _, choices = _annotated(node.slice)
            return kind, True, choices
        if base == "Literal":
            options = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return "str", False, tuple(str(o.value) for o in options if isinstance(o, ast.Constant))
        return base, False, ()
    return getattr(node, "id", ""), False, ()


def _convert(parameter: Parameter, value: Any) -> Any:
    wrong = ReportError(f"{parameter.name}: got {value!r}; allowed: {parameter.allowed}")
    if not parameter.kind:
        raise ReportError(
            f"{parameter.name}: got {value!r}, but the notebook does not say its type; "
            "annotate it or give it a literal default"
        )
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()  # a numpy scalar
    if value is None or (parameter.optional and isinstance(value, str) and value.strip().lower() in {"none", "null"}):
        if parameter.optional:
            return None
        raise wrong
    try:
        converted = _CONVERT[parameter.kind](value)
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError):
        raise wrong from None
    if parameter.choices and converted not in parameter.choices:
        raise ReportError(f"{parameter.name}: got {value!r}; {near(str(value), parameter.choices)}")
    return converted


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in TRUE | FALSE:
        raise ValueError
    return word in TRUE


def _str(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    parsed = _literal(value)
    if not isinstance(parsed, list | tuple):
        raise TypeError
    return list(parsed)


def _dict(value: Any) -> dict[str, Any]:
    parsed = _literal(value)
    if not isinstance(parsed, dict):
        raise TypeError
    return dict(parsed)


def _literal(value: Any) -> Any:
    """Read JSON or a Python literal, and refuse NaN at any depth."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = ast.literal_eval(value)
    json.dumps(value, allow_nan=False)
    return value


_CONVERT = {"int": _int, "float": _float, "bool": _bool, "str": _str, "list": _list, "dict": _dict}


def _spec_of(notebook: nbformat.NotebookNode) -> Any:
    name = notebook.metadata.get("aiinfra", {}).get("experiment", "")
    if not name:
        return None
    try:
        return experiment(str(name)).spec
    except LabError as error:
        raise ReportError(f"the notebook's metadata names an unknown experiment: {error}") from error
