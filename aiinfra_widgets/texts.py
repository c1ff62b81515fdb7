"""Texts for people, in their language: `tr("Run")`. English is the key, and what is shown where there is no translation.

Catalogs are gettext files, `locale/LANGUAGE/LC_MESSAGES/aiinfra.mo`; docs/translating.md says how they are made.
A record of a run, a log and an error are written in English, whoever runs it; `told` says them in the language of the person who reads.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gettext import NullTranslations

T = TypeVar("T", bound=str)
ENGLISH = "en"
VARIABLE = "AIINFRA_LANGUAGE"
LOCALES = Path(__file__).resolve().parent / "locale"
DOMAIN = "aiinfra"
#: Where JupyterLab keeps the language that a person chose in its menu, below the folder of user settings.
JUPYTERLAB = Path("@jupyterlab", "translation-extension", "plugin.jupyterlab-settings")

#: A text with placeholders that does not begin with a word of its own is recognised by at least so many letters: "{low} to {high}"
#: would be found in many sentences.
LETTERS = 7

_lock = threading.Lock()
_chosen = ""
_here: ContextVar[str] = ContextVar("aiinfra_language", default="")


def tr(text: str, /, **values: object) -> str:
    """Return `text` in the reader's language, with `values` put in as `str.format` does."""
    found = _catalog(language()).gettext(text) if language() != ENGLISH else text
    return found.format(**values) if values else found


def trn(one: str, many: str, count: int, /, **values: object) -> str:
    """Return the form for `count` things, in the reader's language; `{count}` in it is `count`."""
    english = one if count == 1 else many
    found = english if language() == ENGLISH else _catalog(language()).ngettext(one, many, count)
    return found.format(count=count, **values)


def N_(text: T, /) -> T:  # noqa: N802 - gettext's name
    """Return `text` as it is: it is in the catalog, and translated where it is shown (`tr`, or `told` where values are in it already)."""
    return text


def told(text: str, /) -> str:
    """Return an English sentence that was written down earlier in the reader's language; values inside it stay.

    Args:
        text: Of a record, a prediction's note or an error: an entry of the catalog with its placeholders filled in. What is
            in no catalog comes back as it is. Several lines are told one by one.
    """
    return text if language() == ENGLISH else _told(language(), text)


def language() -> str:
    """Return the reader's language: "en", or the name of a folder of `locale`, such as "zh_CN".

    It is what `use` chose, else AIINFRA_LANGUAGE, else in a kernel or a Jupyter server the language of JupyterLab, else the system's.
    """
    global _chosen
    if here := _here.get():
        return here
    if not _chosen:
        with _lock:
            _chosen = next(filter(None, map(known, _wishes())), ENGLISH)
    return _chosen


def use(wish: str = "") -> str:
    """Speak this language from now on, and return its name; "" is the person's own. What is on the screen stays as it is.

    Args:
        wish: "en", "zh_CN", "zh-CN" or "zh".

    Raises:
        ValueError: There is no catalog of it.
    """
    global _chosen
    found = known(wish) if wish else ""
    if wish and not found:
        raise ValueError(f"language: got {wish!r}; allowed: {', '.join((ENGLISH, *languages()))}")
    _chosen = found
    return language()


@contextmanager
def speaking(wish: str) -> Iterator[None]:
    """Speak another language inside, in this thread only; one without a catalog changes nothing. For a page of its own language."""
    token = _here.set(known(wish))
    try:
        yield
    finally:
        _here.reset(token)


def languages() -> tuple[str, ...]:
    """Return the languages that have a catalog, besides English."""
    return _languages()


def html_language() -> str:
    """Return the language as the `lang` of a page: `en`, `zh-CN`."""
    return language().replace("_", "-")


def known(wish: str) -> str:
    """Return the catalog that serves a wish such as `zh_CN.UTF-8`, `zh-Hans` or `en_GB`, or "" where none does."""
    name = wish.partition(".")[0].partition("@")[0].replace("-", "_")
    if not name or name in {"C", "POSIX"}:
        return ENGLISH if name else ""
    start = name.partition("_")[0].lower()
    if start == ENGLISH:
        return ENGLISH
    if name in languages():
        return name
    return next((there for there in languages() if there.partition("_")[0].lower() == start), "")


@cache
def _languages() -> tuple[str, ...]:
    return tuple(sorted(p.parent.parent.name for p in LOCALES.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")))


def _wishes() -> Iterator[str]:
    yield os.environ.get(VARIABLE, "")
    if "JPY_PARENT_PID" in os.environ or "JPY_SESSION_NAME" in os.environ or "jupyter_server" in sys.modules:
        yield _of_jupyterlab()
    yield from os.environ.get("LANGUAGE", "").split(":")
    yield next(filter(None, (os.environ.get(n, "") for n in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")


def _of_jupyterlab() -> str:
    """Return the language set in JupyterLab's menu, or ""; its file is JSON with comments."""
    home = os.environ.get("JUPYTER_CONFIG_DIR") or Path.home() / ".jupyter"
    folder = Path(os.environ.get("JUPYTERLAB_SETTINGS_DIR") or Path(home, "lab", "user-settings"))
    try:
        lines = (folder / JUPYTERLAB).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    said = re.search(
        r'"locale"\s*:\s*"([\w-]+)"', "\n".join(line for line in lines if not line.lstrip().startswith("//"))
    )
    return "" if said is None or said[1] == "default" else said[1]


@cache
def _catalog(name: str) -> NullTranslations:
    import gettext

    return gettext.translation(DOMAIN, LOCALES, [name])


@lru_cache(4096)
def _told(name: str, text: str) -> str:
    if "\n" in text:
        return "\n".join(_told(name, line) for line in text.split("\n"))
    found = _catalog(name).gettext(text) if text else text
    if found != text:
        return found
    for pattern, fields, translation in _patterns(name):
        if match := pattern.fullmatch(text):
            values = {f: v if v == text else _told(name, v) for f, v in zip(fields, match.groups(), strict=True)}
            return "".join(
                plain + (values.get(field, "") if field is not None else "")
                for plain, field, _, _ in Formatter().parse(translation)
            )
    for sign in ("; ", ": "):  # sentences in a row, and a name before one
        if sign in text:
            return tr(sign).join(_told(name, piece) for piece in text.split(sign))
    return text


@cache
def _patterns(name: str) -> tuple[tuple[re.Pattern[str], list[str], str], ...]:
    """Return what recognises a filled-in entry, those with most words of their own first: (pattern, names of its groups, translation)."""
    found = []
    for key, translation in getattr(_catalog(name), "_catalog", {}).items():
        pieces = list(Formatter().parse(key)) if isinstance(key, str) and "{" in key else []
        fields = [field for _, field, _, _ in pieces if field is not None]
        words = "".join(plain for plain, *_ in pieces)
        letters = len(re.findall(r"[^\W\d_]", words))
        if not fields or len(fields) != len(set(fields)) or letters < (3 if key[0].isalpha() else LETTERS):
            continue
        text = "".join(re.escape(plain) + ("(.*?)" if field is not None else "") for plain, field, _, _ in pieces)
        found.append((len(words), re.compile(text), fields, translation))
    found.sort(key=lambda f: -f[0])
    return tuple(rest for _, *rest in found)  # type: ignore[misc]
