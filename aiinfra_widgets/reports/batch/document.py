"""A YAML file as plain nodes that know their line. Nothing in it can run code, unfold without bound, or be taken for something else.

Scalars stay the text that the person wrote: the notebook's own defaults say whether `no`, `1e12` or `2:30` is a word, a
number or a truth, exactly as after `-p` on the command line. YAML's own guesses (no is false, 2:30 is 150) are not made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import SpecError, near

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
NULL = frozenset({"", "~", "null", "none"})


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of the file.

    Attributes:
        value: Text, None, a list of nodes, or a mapping of names to nodes.
        where: `FILE:LINE`, for messages.
        keys: Where each name of a mapping stands.
        quoted: Written between quotation marks, so surely text.
    """

    value: str | list[Node] | dict[str, Node] | None
    where: str
    keys: dict[str, str]
    quoted: bool = False

    def plain(self, inside: bool = False) -> Any:
        """Return text, None, lists and mappings. Only `inside` a list or a mapping is 4 a number and true a truth: there, the
        notebook's default says nothing of a value's type.
        """
        if isinstance(self.value, list):
            return [n.plain(inside=True) for n in self.value]
        if isinstance(self.value, dict):
            return {k: n.plain(inside=True) for k, n in self.value.items()}
        return _typed(self.value) if inside and not self.quoted and self.value else self.value

    def mapping(self, what: str) -> dict[str, Node]:
        """Return the names and their nodes.

        Raises:
            SpecError: It is something else.
        """
        if isinstance(self.value, dict):
            return self.value
        raise self.error(f"{what}: got {self.kind}; write it as `name: value` lines")

    def items(self, what: str) -> list[Node]:
        """Return the nodes of a list.

        Raises:
            SpecError: It is something else.
        """
        if isinstance(self.value, list):
            return self.value
        raise self.error(f"{what}: got {self.kind}; write a list: [1, 2], or one `- ...` a line")

    def text(self, what: str) -> str:
        """Return a word.

        Raises:
            SpecError: It is a list, a mapping, or empty.
        """
        if isinstance(self.value, str) and self.value.strip():
            return self.value.strip()
        raise self.error(f"{what}: got {self.kind}; allowed: text on one line")

    def known(self, names: tuple[str, ...], what: str) -> None:
        """Refuse names that are not among `names`.

        Raises:
            SpecError: One line for each, with the near matches.
        """
        found = self.mapping(what)
        wrong = [f"{self.keys[k]}: {k!r} is no setting of {what}; {near(k, names)}" for k in found if k not in names]
        if wrong:
            raise SpecError("\n".join(wrong))

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        return "nothing" if self.value is None else repr(self.value)

    def error(self, message: str) -> SpecError:
        """Return an error that says where."""
        return SpecError(f"{self.where}: {message}")


def read(path: Path) -> Node:
    """Read one YAML document.

    Raises:
        SpecError: Not there, too large, not YAML, or with what a list of reports never needs: anchors, tags, a name twice.
    """
    try:
        if not path.is_file() and path.exists():
            raise SpecError(f"{path}: cannot be read (it is no file); give a YAML file that lists reports")
        with path.open("rb") as file:  # so much and no more, whatever it says of its size
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SpecError(f"{path}: {path.stat().st_size} bytes; a batch file has at most {MAX_BYTES}")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(f"{path}: cannot be read ({why}); give a YAML file that lists reports") from error
    try:
        events = _refused(yaml.parse(text, Loader=yaml.SafeLoader), path.name)
        for _ in events:  # all of it, before anything is built from it
            pass
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        why = f"{error.problem}{f' {error.context}' if error.context else ''}"
        raise SpecError(f"{path.name}:{line}: this is not YAML: {why}; look at the indents and colons there") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path.name}: this is not YAML: {error}") from error
    if root is None:
        raise SpecError(f"{path}: the file is empty; it needs a list `reports:`")
    return _node(root, path.name)


def _refused(events: Iterator[Any], name: str) -> Iterator[Any]:
    """Pass events on, refusing what could unfold without bound or means something hidden."""
    depth = 0
    for event in events:
        where = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SpecError(
                f"{where}: anchors and aliases (& and *) are not allowed; put what reports share into `defaults:`"
            )
        if tag := getattr(event, "tag", None):
            raise SpecError(f"{where}: the tag {tag} is not allowed; write plain values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError(f"{where}: nested deeper than {MAX_DEPTH} levels; is an indent or a bracket wrong?")
        yield event


def _typed(text: str) -> Any:
    """Return the number or truth that JSON reads in `text`, else the text."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, bool | int) or (isinstance(found, float) and math.isfinite(found)) else text


def _node(found: Any, name: str) -> Node:
    where = f"{name}:{found.start_mark.line + 1}"
    if isinstance(found, yaml.ScalarNode):
        empty = found.style is None and found.value.lower() in NULL
        return Node(None if empty else found.value, where, {}, quoted=found.style is not None)
    if isinstance(found, yaml.SequenceNode):
        return Node([_node(n, name) for n in found.value], where, {})
    values: dict[str, Node] = {}
    keys: dict[str, str] = {}
    for key, value in found.value:
        line = f"{name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise SpecError(f"{line}: a name must be a word, not a list or a mapping")
        if key.value in values:
            raise SpecError(f"{line}: {key.value!r} is there a second time; the first is at {keys[key.value]}")
        values[key.value], keys[key.value] = _node(value, name), line
    return Node(values, where, keys)
