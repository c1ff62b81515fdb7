"""Nothing is shown that cannot be translated, and every catalog is whole and up to date."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from babel.messages import mofile
from catalogs import DECLARED, PACKAGE, compiled, extract, kept, path_of, read, renewed, texts_in, written

WIDGETS = sorted((PACKAGE / "widgets").glob("*.py"))
RENEW = "run `make texts`, and translate what it names"
#: Literals that look like texts and are none, by file, each with its reason.
NO_TEXTS = {
    "claims_table.py": {"holds here"},  # a key: a verdict that claims/verdicts.py declares
    "compare.py": {"not compared"},  # a key: a verdict of comparison.py
    "controls.py": {"GiB", "MiB", "KiB", "Field"},  # units; a type
    "figures.py": {"MiB"},
    "header.py": {"was deleted or moved"},  # looked for in an English status
    "lab.py": {"not started", "press Run, or call lab.run()"},  # machine-readable results, which are in English
    "runs_index.py": {
        "run directory of format ",
        "; this release reads ",
        "run.json cannot be read: ",
    },  # written down, and told
    "scale_out.py": {"ScaleOut"},
    "scale_out_fields.py": {"my last training run"},  # a value of a field, as a script gives it
    "scale_out_screen.py": {"Communication", "Communication: "},  # a field's name in an error, which is taken away
    "screen.py": {"Screen"},
    "theme.py": {
        "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
    },
}
TAGS = re.compile(r"</?\w+>")
#: Calls whose texts are keys of a table that is extracted itself.
BY_KEY = {"word_html"}


def looks_like_text(literal: str) -> bool:
    """Whether a person would read it: two words, or a word with a capital, outside of HTML's tags; or a tooltip."""
    plain = re.sub(r"<[^>]*>", " ", literal)
    plain = re.sub(r"</?\w[^>]*$|^[^<]*>", " ", plain) if {"<", ">"} & set(literal) else plain
    if re.search(r"(title|aria-label|placeholder|alt)=.?[A-Za-z]", literal):
        return True
    return bool(re.search(r"[A-Za-z]{2,} [A-Za-z]", plain) or re.search(r"(^|\W)[A-Z][a-z]+", plain))


def bare(path: Path) -> Iterator[str]:
    """Yield the literals of a file that look like texts and are in no call that translates or declares."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skip: set[int] = set()
    for node in ast.walk(tree):
        inside: list[ast.AST | None] = []
        if isinstance(node, ast.Expr):  # a docstring
            inside = [node.value] if isinstance(node.value, ast.Constant) else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {*DECLARED, *BY_KEY}:
            inside = [node]
        elif isinstance(node, ast.AnnAssign | ast.arg):
            inside = [node.annotation]
        elif isinstance(node, ast.Raise) or (isinstance(node, ast.FunctionDef) and node.name == "__repr__"):
            inside = [node]  # an error is told where it is shown
        elif isinstance(node, ast.Dict):
            inside = [k for k in node.keys if isinstance(k, ast.Constant)]
        skip |= {id(n) for each in inside if each is not None for n in ast.walk(each)}
    literals = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    yield from (str(n.value) for n in literals if id(n) not in skip and looks_like_text(str(n.value)))


@pytest.mark.parametrize("path", WIDGETS, ids=lambda p: p.name)
def test_every_text_of_the_widgets_is_marked(path: Path) -> None:
    found = set(bare(path)) - NO_TEXTS.get(path.name, set())
    assert not found, f"wrap in tr(...), or in N_(...) where it is shown later: {sorted(found)}"


def test_no_exception_is_stale() -> None:
    for name, literals in NO_TEXTS.items():
        assert literals <= set(bare(PACKAGE / "widgets" / name)), name


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param('button("Press me")', ["Press me"], id="bare"),
        pytest.param("x = f'<b title=\"Why not\">{n}</b>'", ['<b title="Why not">'], id="tooltip"),
        pytest.param('x = f"{n} nodes at work"', [" nodes at work"], id="f-string"),
        pytest.param('button(tr("Press me"))', [], id="wrapped"),
        pytest.param('"""Docs of it."""\nadd_class("aiinfra-lab")', [], id="no-text"),
    ],
)
def test_a_planted_text_is_found(tmp_path: Path, code: str, found: list[str]) -> None:
    path = tmp_path / "new.py"
    path.write_text(code)
    assert list(bare(path)) == found


def test_extraction_finds_every_kind_of_text(tmp_path: Path) -> None:
    (tmp_path / "widgets").mkdir()
    path = tmp_path / "widgets" / "new.py"
    path.write_text(
        'tr("one {x}", x=1)\ntrn("{count} run", "{count} runs", n)\nN_(f"node {e.by} at {t:.2f}: {e.by} {{")\n'
        'Quantity("a_s", "Label", "s", "Help.")\nraise SpecError(f"{name}: not {x!r}")\n'
        'class A(Spec):\n    top_k_s: float = knob(0.0, "Share.", unit="s", group="Group")\n'
    )
    assert dict(texts_in(path, "widgets/new.py")) == {
        "one {x}": "", "{count} run": "{count} runs", "node {by} at {t}: {v5} {{": "", "Label": "", "Help.": "",
        "{name}: not {x}": "", "Top k": "", "Share.": "", "Group": "",
    }  # fmt: skip


def test_there_is_a_catalog() -> None:
    assert "zh_CN" in kept()


@pytest.mark.parametrize("language", kept())
def test_a_catalog_is_up_to_date(language: str) -> None:
    texts, catalog = extract(), read(language)
    have = {m.id if isinstance(m.id, str) else m.id[0] for m in catalog if m.id}
    assert sorted(set(texts) - have) == [], RENEW
    assert sorted(have - set(texts)) == [], RENEW
    assert written(renewed(catalog, texts)) == path_of(language).read_bytes(), RENEW
    assert not catalog.obsolete, RENEW
    assert compiled(catalog) == path_of(language).with_suffix(".mo").read_bytes(), RENEW


def fields(text: str) -> set[tuple[str | None, str | None]]:
    return {(name, spec) for _, name, spec, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", kept())
def test_every_text_is_translated_with_its_placeholders(language: str) -> None:
    for message in read(language):
        if not message.id:
            continue
        one = message.id if isinstance(message.id, str) else message.id[0]
        assert not message.fuzzy, one
        said = [message.string] if isinstance(message.string, str) else list(message.string)
        assert all(said), f"no translation of {one!r}"
        for text in said:
            assert fields(text) == fields(one), f"placeholders of {one!r} in {text!r}"
            assert sorted(TAGS.findall(text)) == sorted(TAGS.findall(one)), one


def test_chinese_texts_are_chinese() -> None:
    """No text was forgotten by copying it: what stays as it is are names, units and formulas."""
    same = {m.id for m in read("zh_CN") if m.id and m.id == m.string}
    assert same <= {"PUE", "N t / T", "Slurm"}


def test_the_compiled_catalog_holds_the_same(tmp_path: Path) -> None:
    with path_of("zh_CN").with_suffix(".mo").open("rb") as file:
        found = mofile.read_mo(file)
    assert found.get("Step time").string == read("zh_CN").get("Step time").string
