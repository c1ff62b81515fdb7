"""The labs that ship with the package, and a person's own copy of one: made once, never written over."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_async

from ..errors import UnknownNameError, near
from ..texts import language

#: Where copies go, below the folder that JupyterLab was started in.
FOLDER = "aiinfra-labs"
#: A course's own notebooks; they take the place of ours.
ENV = "AIINFRA_LABS"


@dataclass(frozen=True, slots=True)
class Card:
    """What the launcher says of a lab.

    Attributes:
        name: File name, by which it is asked for.
        title: Its heading.
        sentence: Its goal.
        minutes: About how long it takes, "" where it does not say.
    """

    name: str
    title: str
    sentence: str
    minutes: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON."""
        return asdict(self)


def labs_folder() -> Path | None:
    """Return where the labs are: AIINFRA_LABS, else inside an installed wheel, else in the source tree; None for nowhere."""
    places = (
        *([Path(os.environ[ENV]).expanduser()] if os.environ.get(ENV) else []),
        Path(str(resources.files("aiinfra_widgets") / "labs")),
        Path(__file__).resolve().parents[2] / "labs",
    )
    return next((p for p in places if any(p.glob("[0-9][0-9]_*.ipynb"))), None)


def cards() -> list[Card]:
    """Return a card for every lab, in their order; a notebook that cannot be read is left out."""
    folder = labs_folder()
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb")) if folder else []
    editions = [edition(path) for path in paths]
    return [card for path in editions if (card := _card(path, path.stat().st_mtime_ns)) is not None]


def edition(path: Path) -> Path:
    """Return a lab in the reader's language where there is such an edition, in a folder with the language's name; else the lab."""
    own = path.parent / language() / path.name
    return own if own.is_file() else path


@lru_cache(maxsize=256)
def _card(path: Path, _changed_ns: int) -> Card | None:
    """Read the first cell of a notebook: a heading, then **Goal** and **Time** in one paragraph."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "".join(next(c["source"] for c in cells if c["cell_type"] == "markdown"))
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    heading, _, rest = text.partition("\n")
    paragraph = rest.strip().partition("\n\n")[0]
    bold = re.split(r"\*\*[^*]+\*\*", paragraph)  # before the first word in bold, then what follows each of them
    said = [" ".join(part.split()) for part in bold[1:]] or [" ".join(paragraph.split())]
    return Card(path.name, heading.lstrip("# ").strip(), said[0], said[1].rstrip(".。") if len(said) > 1 else "")


async def open_copy(contents: Any, root: Path | None, name: str, *, fresh: bool = False) -> dict[str, Any]:
    """Return the path of a person's copy of a lab, made if there is none; an existing one is never touched.

    Where JupyterLab was started in the folder of the labs itself (`make lab`), the lab there is the person's own.

    Args:
        contents: The server's contents manager, so that a copy goes where this server keeps files.
        root: Its folder, where it has one.
        name: File name of a lab.
        fresh: Make another copy beside an existing one, under a new name.

    Returns:
        `path` for JupyterLab, `made` (whether it is new), and `fresh_too` (whether another copy may be asked for).

    Raises:
        UnknownNameError: There is no such lab.
    """
    folder = labs_folder()
    known = [card.name for card in cards()]
    if folder is None or name not in known:
        raise UnknownNameError(f"no lab {name!r}; {near(name, known)}")
    if not fresh and root is not None and (root / name).exists() and (root / name).samefile(folder / name):
        return {"path": name, "made": False}
    if not await ensure_async(contents.dir_exists(FOLDER)):
        await ensure_async(contents.save({"type": "directory", "format": "json", "content": None}, FOLDER))
    path = f"{FOLDER}/{name}"
    if await ensure_async(contents.file_exists(path)):
        if not fresh:
            return {"path": path, "made": False}
        path = f"{FOLDER}/" + await ensure_async(contents.increment_filename(name, FOLDER, insert="-"))
    notebook = json.loads(edition(folder / name).read_text(encoding="utf-8"))
    await ensure_async(contents.save({"type": "notebook", "format": "json", "content": notebook}, path))
    return {"path": path, "made": True}
