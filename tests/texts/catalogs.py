"""Texts for people in the source, and the catalogs that translate them. `python tests/texts/catalogs.py` brings every catalog up to date.

What is a text: the argument of `tr`, `trn` and `N_`; what a declaration of the vocabulary, of a Spec or of a claim says (DECLARED);
and what an error says that a widget may show (TOLD). An f-string becomes a text with placeholders, in the order of its values.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from babel.messages import mofile, pofile
from babel.messages.catalog import Catalog

from aiinfra_widgets.spec import _label
from aiinfra_widgets.texts import DOMAIN, LOCALES

HEADER = "# PROJECT: its texts in another language. Brought up to date by `make texts`; see docs/translating.md.\n#"
TEMPLATE = re.compile(r'\b(trn?)\("([^"]+)"(?:, "([^"]+)")?')
WORDS = re.compile(r"(?<![{\w])[A-Za-z][a-z]+(?![\w}])")
REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "aiinfra_widgets"
#: Of these calls, which arguments are texts, by place or by name.
DECLARED: dict[str, tuple[int | str, ...]] = {
    "tr": (0,),
    "N_": (0,),
    "trn": (0, 1),
    "Quantity": (1, 3, "label", "help"),
    "Verb": (1, "help"),
    "knob": (1, "label", "group"),
    "Timeline": ("lanes", "bars", "details"),
    "Claim": ("source", "about", "wrong", "right_name", "senseless"),
    "Input": (2, "label"),
    "Example": (2, "says"),
    "Axes": (1, 3, "label", "y_label"),
}
#: Attributes of an experiment that are texts; of what one tick is called, the plural too.
ATTRIBUTES = ("title", "tick")
#: Whole tables of texts that are also used as keys.
TABLES = {"models/kinds.py": ("KINDS",)}
#: Where errors are raised that a person meets on the page. Elsewhere an error is for a terminal, and stays in English.
TOLD = (
    "spec.py", "knobs.py", "errors.py", "experiments/*/spec.py", "experiments/training/predict_memory.py", "models/rank_grid.py",
    "parallel/plan.py",
    "runs/control.py", "launch/session.py", "launch/pool.py", "machine/limits.py", "widgets/*.py", "claims/claim.py", "claims/units.py",
)  # fmt: skip
#: What stands in pieces: the words before a list of names in an error, and what parts sentences in a row.
MORE = {
    "known: {names}": "aiinfra_widgets/errors.py",
    "; ": "aiinfra_widgets/texts.py",
    ": ": "aiinfra_widgets/texts.py",
}
#: Where sentences are written down in English that a widget tells later: notes, causes, provenance, how a run ended. There, every
#: literal of at least three words is a text.
SAID = (
    "errors.py", "bill.py", "experiments/*/predict.py", "experiments/*/explain.py", "experiments/*/distil.py", "experiments/*/bill.py",
    "experiments/*/__init__.py", "experiments/*/rates.py", "experiments/serving/theory.py", "experiments/serving/service_time.py",
    "experiments/scheduling/step_time.py", "planning/scale.py", "planning/scale_run.py", "ranks/runtime.py", "launch/supervisor.py",
    "claims/verdicts.py", "claims/measure_*.py", "claims/rig.py", "claims/trials.py", "claims/units.py",
)  # fmt: skip


@dataclass
class Text:
    """One text: its plural where it has one, and the files where it stands."""

    one: str
    many: str = ""
    places: set[str] = field(default_factory=set)


def extract(root: Path = PACKAGE) -> dict[str, Text]:
    """Return every text below `root` by its English form."""
    found: dict[str, Text] = {}
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root.parent).as_posix()
        for one, many in texts_in(path, path.relative_to(root).as_posix()):
            entry = found.setdefault(one, Text(one, many))
            entry.many = entry.many or many
            entry.places.add(place)
    for path in sorted(root.rglob("*.j2")):
        for name, *said in TEMPLATE.findall(path.read_text(encoding="utf-8")):
            entry = found.setdefault(said[0], Text(said[0], said[1] if name == "trn" else ""))
            entry.places.add(path.relative_to(root.parent).as_posix())
    for one, place in MORE.items():
        found[one] = Text(one, places={place})
    return found


def texts_in(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield (one, many) of a file; many is "" where there is no plural. `name` is relative to the package."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    told = _is_one_of(name, TOLD)
    if _is_one_of(name, SAID):
        yield from ((t, "") for t in _sentences(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.ClassDef):
            yield from _of_class(node)
        elif isinstance(node, ast.Raise) and told and isinstance(node.exc, ast.Call):
            if ast.unparse(node.exc.func).endswith("Error") and node.exc.args:
                yield from ((t, "") for t in literals(node.exc.args[0]) if " " in t)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id in TABLES.get(name, ()) for t in targets) and node.value:
                yield from ((str(n.elts[0].value), "") for n in ast.walk(node.value) if _is_pair(n))  # type: ignore[attr-defined]


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(Path(name).match(p) and len(Path(name).parts) == len(Path(p).parts) for p in patterns)


def _sentences(tree: ast.AST) -> Iterator[str]:
    """Yield every literal of three words or more that is no docstring and no part of a larger one."""
    inner = {
        id(n) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for n in ast.walk(node) if n is not node
    }
    plain = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in inner | plain:
            yield from (t for t in literals(node) if not isinstance(node, ast.IfExp) and _is_sentence(t))


def _is_sentence(text: str) -> bool:
    return len(WORDS.findall(text)) >= 3 and text.count(" ") >= 2 and "\n" not in text


def _is_pair(node: ast.AST) -> bool:
    return isinstance(node, ast.Tuple) and bool(node.elts) and isinstance(node.elts[0], ast.Constant)


def _of_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = ast.unparse(node.func).rpartition(".")[2]
    if name not in DECLARED:
        return
    if name == "Verb" and node.args:  # a verb is shown by its name
        yield from ((verb.replace("_", " ").replace("-", " ").capitalize(), "") for verb in literals(node.args[0]))
    named = {k.arg: k.value for k in node.keywords}
    wanted = [node.args[a] if isinstance(a, int) and a < len(node.args) else named.get(str(a)) for a in DECLARED[name]]
    said = [literals(w) for w in wanted if w is not None]
    if name == "trn":
        yield from zip(*said, strict=True)
        return
    for texts in said:
        yield from ((t, "") for t in texts if t)
    if name == "Timeline":
        from aiinfra_widgets.widgets.words import english_plural

        yield from ((english_plural(t), "") for t in literals(named.get("bars")))


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield an experiment's title and tick, and the labels that knobs get from their names."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            continue
        name, value = line.target.id, line.value
        if name in ATTRIBUTES and "ClassVar" in ast.unparse(line.annotation) and isinstance(value, ast.Constant):
            yield str(value.value), ""
            if name == "tick":
                from aiinfra_widgets.widgets.words import english_plural

                yield english_plural(str(value.value)), ""
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "knob":
            given = {k.arg: k.value for k in value.keywords}
            unit = given.get("unit")
            if "label" not in given:
                yield _label(name, str(unit.value) if isinstance(unit, ast.Constant) else ""), ""


def literals(node: ast.AST | None) -> list[str]:
    """Return the texts that an expression may be: a literal, either side of a condition, an f-string with its placeholders."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*literals(node.body), *literals(node.orelse)]
    if isinstance(node, ast.JoinedStr):
        return [template(node)]
    return []


def template(node: ast.JoinedStr) -> str:
    """Return an f-string as a text with placeholders: `{count}` for a name or an attribute, else its number."""
    parts, used = [], set[str]()
    for i, piece in enumerate(node.values):
        if isinstance(piece, ast.Constant):
            parts.append(str(piece.value).replace("{", "{{").replace("}", "}}"))
            continue
        assert isinstance(piece, ast.FormattedValue)
        value = piece.value
        name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else f"v{i}"
        name = name if name not in used else f"v{i}"
        used.add(name)
        parts.append(f"{{{name}}}")
    return "".join(parts)


def path_of(language: str) -> Path:
    """Return where the catalog of a language is kept."""
    return LOCALES / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(language: str) -> Catalog:
    """Return the catalog of a language as it is kept."""
    with path_of(language).open("rb") as file:
        return pofile.read_po(file, locale=language, domain=DOMAIN)


def renewed(old: Catalog, texts: dict[str, Text]) -> Catalog:
    """Return a catalog of exactly these texts, with the translations of the old one; new ones are empty."""
    new = Catalog(
        locale=old.locale, domain=DOMAIN, project="aiinfra lab", version="1", fuzzy=False, header_comment=HEADER,
        creation_date=old.creation_date, revision_date=old.creation_date, last_translator="the aiinfra lab maintainers",
        language_team="the aiinfra lab maintainers", msgid_bugs_address="none", copyright_holder="the aiinfra lab maintainers",
    )  # fmt: skip
    for text in texts.values():
        key = (text.one, text.many) if text.many else text.one
        before = old.get(text.one)
        said = before.string if before is not None and not before.fuzzy else ""
        if text.many and isinstance(said, str):
            said = (said,) * new.num_plurals
        elif not text.many and isinstance(said, tuple | list):
            said = said[0]
        new.add(key, said, [(p, None) for p in sorted(text.places)])  # type: ignore[list-item]
    return new


def written(catalog: Catalog) -> bytes:
    """Return a catalog as a .po file: by place, so that what stands together is translated together."""
    out = io.BytesIO()
    pofile.write_po(out, catalog, width=140, sort_by_file=True, ignore_obsolete=True)
    return out.getvalue()


def compiled(catalog: Catalog) -> bytes:
    """Return a catalog as a .mo file."""
    out = io.BytesIO()
    mofile.write_mo(out, catalog)
    return out.getvalue()


def kept() -> list[str]:
    """Return the languages that have a catalog."""
    return sorted(p.parent.parent.name for p in LOCALES.glob(f"*/LC_MESSAGES/{DOMAIN}.po"))


def main(new: list[str]) -> None:
    """Renew every catalog and its compiled form; those of `new` are begun."""
    texts = extract()
    for language in sorted({*kept(), *new}):
        target = path_of(language)
        catalog = renewed(read(language) if target.exists() else Catalog(language, DOMAIN), texts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(written(catalog))
        target.with_suffix(".mo").write_bytes(compiled(catalog))
        missing = [m.id for m in catalog if m.id and not any(m.string if isinstance(m.string, tuple) else [m.string])]
        print(f"{language}: {len(texts)} texts, {len(missing)} without a translation")
        print(*(f"  {text!r}" for text in missing), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
