"""What a report must not carry: where a person's files lie, what their machine is called, and their secrets."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

#: Names of environment variables whose values are secrets.
SECRET = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|AUTH", re.IGNORECASE)
MIN_SECRET_CHARS = 8

Scrub = Callable[[str], str]


def scrubber(folders: Mapping[str, Path] | None = None, environment: Mapping[str, str] | None = None) -> Scrub:
    """Return a function that replaces private strings in a text.

    Args:
        folders: Name shown to the reader for each folder ("notebook folder"); the home and the Python are added.
        environment: Where secrets are looked for; this process's by default.

    A host name is replaced only when it has a digit, a dot, a dash or an underscore: one that is a plain word
    ("training") could not be told from the word.
    """
    environment = os.environ if environment is None else environment
    table: dict[str, str] = {}
    named = {**(folders or {}), "python": Path(sys.prefix)}
    for label, path in named.items():
        for form in {str(path), str(path.absolute()), str(path.resolve())}:
            if len(Path(form).parts) > 2:  # "/usr" or "/tmp" tells nothing, and is everywhere
                table[form] = f"{{{label}}}"
    for form in {str(Path.home()), str(Path.home().resolve()), environment.get("HOME", "")}:
        if form not in {"", "/", "/home", "/Users"}:
            table.setdefault(form.rstrip("/"), "~")
    for name, value in environment.items():
        if SECRET.search(name) and len(value) >= MIN_SECRET_CHARS and not value.startswith("/"):
            table[value] = f"{{secret {name}}}"
    patterns = [(re.escape(text) + r"(?![\w-])", table[text]) for text in sorted(table, key=len, reverse=True)]
    patterns += [(rf"(?<![\w-]){re.escape(host)}(?![\w-])", "{host}") for host in _hosts()]
    if not patterns:
        return lambda text: text
    joined = re.compile("|".join(f"({pattern})" for pattern, _ in patterns))
    replacements = [replacement for _, replacement in patterns]
    return lambda text: joined.sub(lambda m: replacements[(m.lastindex or 1) - 1], text)


def scrub_data(data: Any, scrub: Scrub, skip: Iterable[str] = ("image/",)) -> Any:
    """Return JSON-like `data` with every string scrubbed; values under keys that begin with one of `skip` stay."""
    skip = tuple(skip)
    if isinstance(data, str):
        return scrub(data)
    if isinstance(data, Mapping):
        return type(data)(  # type: ignore[call-arg]  # a NotebookNode stays one
            {k: v if str(k).startswith(skip) else scrub_data(v, scrub, skip) for k, v in data.items()}
        )
    if isinstance(data, list | tuple):
        return [scrub_data(v, scrub, skip) for v in data]
    return data


def _hosts() -> list[str]:
    names = {socket.gethostname(), socket.gethostname().split(".")[0], os.uname().nodename}
    return sorted(
        (n for n in names if len(n) >= 3 and n != "localhost" and re.search(r"[\d._-]", n)), key=len, reverse=True
    )
