from __future__ import annotations

from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from aiinfra_widgets.errors import ReportError
from aiinfra_widgets.experiment import Spec, knob
from aiinfra_widgets.reports import parameters
from aiinfra_widgets.reports.parameters import check, declared, effective, read_notebook

CELL = """\
# what is asked
nodes = 2  # ranks
lr: float = 1  # learning rate, "#" and all
overlap = False
name = "a # b"
sizes = [1, 2]  # widths
mode: Literal["ring", "tree"] = "ring"
limit: int | None = None
other: Optional[float] = 0.5
made = 64 * nodes
many = {
    "a": 1,
}  # a mapping
x, y = 1, 2
import math
"""


def notebook(source=CELL, **metadata):
    return new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})], metadata=metadata)


def test_the_cell_says_names_types_defaults_and_help():
    found = declared(notebook())
    assert [(p.name, p.kind, p.default, p.help) for p in found.values()] == [
        ("nodes", "int", 2, "ranks"),
        ("lr", "float", 1, 'learning rate, "#" and all'),
        ("overlap", "bool", False, ""),
        ("name", "str", "a # b", ""),
        ("sizes", "list", [1, 2], "widths"),
        ("mode", "str", "ring", ""),
        ("limit", "int", None, ""),
        ("other", "float", 0.5, ""),
        ("made", "", None, ""),
        ("many", "dict", {"a": 1}, "a mapping"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("nodes", "4", 4),
        ("nodes", "1e3", 1000),
        ("nodes", 4.0, 4),
        ("lr", "1e-3", 0.001),
        ("lr", 2, 2.0),
        ("overlap", "yes", True),
        ("overlap", "off", False),
        ("name", "12", "12"),
        ("sizes", "[3, 4]", [3, 4]),
        ("sizes", "(3, 'a')", [3, "a"]),
        ("mode", "tree", "tree"),
        ("limit", "none", None),
        ("limit", "7", 7),
        ("other", None, None),
        ("many", '{"b": null}', {"b": None}),
    ],
)
def test_strings_become_the_type_of_the_default(name, text, want):
    got = check(notebook(), {name: text})[name]
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("nodse", "2", "nodse: no such parameter; did you mean 'nodes'"),
        ("nodes", "two", "nodes: got 'two'; allowed: a whole number"),
        ("nodes", "2.5", "nodes: got '2.5'; allowed: a whole number"),
        ("nodes", True, "nodes: got True"),
        ("nodes", None, "nodes: got None"),
        ("nodes", "nan", "nodes: got 'nan'"),
        ("lr", "nan", "lr: got 'nan'; allowed: a finite number"),
        ("lr", float("nan"), "lr: got nan; allowed: a finite number"),
        ("lr", "-inf", "lr: got '-inf'"),
        ("lr", "1e999", "lr: got '1e999'"),
        ("lr", True, "lr: got True"),
        ("overlap", "maybe", "overlap: got 'maybe'; allowed: true or false"),
        ("overlap", 1, "overlap: got 1"),
        ("name", 5, "name: got 5; allowed: text"),
        ("sizes", "[1, NaN]", "sizes: got '[1, NaN]'"),
        ("sizes", "__import__('os')", "sizes: got"),
        ("sizes", "[" * 5000, "sizes: got"),
        ("mode", "rign", "did you mean 'ring'?"),
        ("made", "4", "does not say its type"),
        ("many", "[1]", "many: got '[1]'; allowed: a mapping"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_is_allowed(name, value, says):
    with pytest.raises(ReportError) as caught:
        check(notebook(), {name: value})
    assert says in str(caught.value)


def test_every_wrong_parameter_has_its_own_line():
    with pytest.raises(ReportError) as caught:
        check(notebook(), {"nodes": "x", "lr": "y", "nope": 1, "overlap": "true"})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["nodes", "lr", "nope"]


def test_a_notebook_without_parameters_takes_none():
    bare = new_notebook(cells=[new_code_cell("nodes = 2")])
    assert check(bare, {}) == {}
    with pytest.raises(ReportError, match="without parameters"):
        check(bare, {"nodes": 3})


def test_a_broken_parameters_cell_says_where():
    with pytest.raises(ReportError, match="line 2"):
        declared(notebook("a = 1\nb = = 2"))
    twice = new_notebook(cells=[*notebook().cells, *notebook().cells])
    with pytest.raises(ReportError, match="allowed: one"):
        declared(twice)


def test_effective_values_are_defaults_and_what_was_given():
    values = effective(notebook(), {"nodes": 8})
    assert (values["nodes"], values["lr"], values["made"]) == (8, 1, None)


class Asked(Spec):
    link_bandwidth_bps: float = knob(1e9, "Of the link.", unit="bit/s", ge=1e6, le=1e12)
    workload: str = knob("mlp", "Net.", choices=("mlp", "cnn"))


def test_an_experiments_notebook_is_checked_by_its_spec(monkeypatch):
    monkeypatch.setattr(parameters, "experiment", lambda name: SimpleNamespace(spec=Asked))
    lab = notebook('nodes = 2\nlink_bandwidth_bps = 1e9\nworkload = "mlp"\nsteps = 10', aiinfra={"experiment": "asked"})
    assert check(lab, {"link_bandwidth_bps": "10 Gbit/s", "steps": "5"}) == {"link_bandwidth_bps": 1e10, "steps": 5}
    with pytest.raises(ReportError) as caught:
        check(lab, {"nodes": "0", "workload": "cmn", "steps": "1.5"})
    text = str(caught.value)
    assert "nodes: got 0; allowed: a whole number from 1 to 512" in text
    assert "did you mean 'cnn'?" in text
    assert "steps: got '1.5'" in text


def test_an_unknown_experiment_in_the_metadata_is_named():
    with pytest.raises(ReportError, match="'trainign'"):
        check(notebook(aiinfra={"experiment": "trainign"}), {})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', "\x00\x01", '{"nbformat": 4, "cells": [{}]}'])
def test_what_is_not_a_notebook_is_refused(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(ReportError, match=r"x\.ipynb"):
        read_notebook(path)


def test_a_missing_file_and_a_folder_and_another_language_are_refused(tmp_path):
    for path in (tmp_path / "none.ipynb", tmp_path):
        with pytest.raises(ReportError, match="cannot be read"):
            read_notebook(path)
    other = notebook(kernelspec={"name": "ir", "display_name": "R", "language": "R"})
    nbformat.write(other, tmp_path / "r.ipynb")
    with pytest.raises(ReportError, match="allowed: python"):
        read_notebook(tmp_path / "r.ipynb")
