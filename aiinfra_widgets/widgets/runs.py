"""`Runs()`: what was run, as a table to search, open, compare, export and delete from.

In a notebook the list is there at once and the measured columns of the page that is seen are filled in by a thread; headless
(AIINFRA_HEADLESS=1, or no notebook) the newest runs are left behind as a table. A deleted run goes to a trash beside the runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import ControlError, LabError
from ..runs.home import runs_folder
from ..runs.layout import find
from ..runs.trash import discard, empty, restore, trashed
from ..texts import tr
from .notebook import headless, show, show_html
from .runs_compare import Side, side_by_side_html, sides
from .runs_index import Listed, Reading, cells, index, matching

#: Runs on one page: so many are read in a second or two.
PAGE = 20


class Runs:
    """The runs of one folder.

    Args:
        folder: Where they live; None is the user's own.
        experiment: Show those of one experiment; "": all.
        text: Show those that hold every one of these words in id, note or setup.
    """

    def __init__(self, folder: Path | str | None = None, *, experiment: str = "", text: str = "") -> None:
        self.folder = Path(folder).expanduser().resolve() if folder else runs_folder()
        self.experiment, self.text, self.page = experiment, text, 0
        self.reading = Reading()
        self._listed = index(self.folder)
        self._screen: Any = None

    # --- what a person or a script does -------------------------------------------------------------------------
    def refresh(self) -> None:
        """Look into the folder again."""
        self._listed = index(self.folder)
        gone = set(self.reading.paths()) - {r.path for r in self._listed}
        self.reading.forget([*gone, *(r.path for r in self.on_page())])

    def filter(self, text: str = "", experiment: str = "") -> None:
        """Show the runs of one experiment ("": all) with these words in id, note or setup."""
        self.text, self.experiment, self.page = text, experiment, 0

    def rows(self) -> list[Listed]:
        """Return the runs that the filter leaves, newest first."""
        return matching(self._listed, self.text, self.experiment)

    def on_page(self) -> list[Listed]:
        """Return those on the page that is shown."""
        return self.rows()[self.page * PAGE : (self.page + 1) * PAGE]

    @property
    def experiments(self) -> list[str]:
        """The experiments that there are runs of."""
        return sorted({r.experiment for r in self._listed if r.experiment})

    def table(self, most: int = PAGE) -> list[dict[str, str]]:
        """Return the newest of these runs with state, prediction and measurement, as plain text."""
        return [cells(r, self.reading.told(r)) for r in self.rows()[:most]]

    def segments(self, name: str) -> list[Side]:
        """Return the segments of one run, to compare.

        Raises:
            RunFormatError: There is no such run, or it cannot be read.
        """
        return sides(find(name, self.folder))

    def compare(self, a: str, b: str, segments: tuple[int | None, int | None] = (None, None)) -> str:
        """Return a comparison of two segments as HTML.

        Args:
            a, b: Runs, by id, an ending of it, or "last"; the same one twice compares its segments.
            segments: Their indices; None takes the last one that has settled (of one run: the last two).

        Raises:
            ControlError: No such segment, or nothing was run.
        """
        left, right = self.segments(a), self.segments(b)
        same = bool(left and right) and left[0].run == right[0].run
        one = chosen(left, segments[0], last=1 if same else 0)
        return side_by_side_html(one, chosen(right, segments[1]))

    def delete(self, names: Iterable[str]) -> list[str]:
        """Move runs to the trash and return their ids; the first that cannot be moved stops it.

        Raises:
            RunFormatError, ControlError, StorageError: See `runs.trash.discard`.
        """
        done = []
        try:
            for name in names:
                discard(name, self.folder)
                done.append(name)
        finally:
            self._listed = [r for r in self._listed if r.id not in done]
        return done

    def put_back(self, names: Iterable[str] | None = None) -> list[str]:
        """Put deleted runs back: these, or the newest one."""
        wanted = list(names) if names is not None else trashed(self.folder)[:1]
        for name in wanted:
            restore(name, self.folder)
        self._listed = index(self.folder)
        return wanted

    def empty_trash(self) -> int:
        """Delete for good what lies in the trash, and return how many runs that were."""
        return empty(self.folder)

    @property
    def trash(self) -> list[str]:
        """Ids of the deleted runs, newest first."""
        return trashed(self.folder)

    def export(self, names: Sequence[str], to: Path | str) -> Path:
        """Pack runs into one archive that another person can open and rerun.

        Raises:
            ControlError: The file is there already, or this installation cannot pack.
        """
        target = Path(to).expanduser().resolve()
        if target.exists():
            raise ControlError(f"{target} is there already; allowed: a new name; choose another one")
        try:
            from ..research.archive import pack
        except ImportError as error:
            raise ControlError(f"this installation cannot pack runs ({error}); copy their folders instead") from error
        return Path(pack([find(n, self.folder).path for n in names], target))

    def open(self, name: str) -> Any:
        """Return a `Lab` that shows one run.

        Raises:
            ControlError: Another run of this experiment goes on in this notebook.
        """
        from .lab import Lab, labs

        run = find(name, self.folder)
        kind = str(run.read_manifest()["experiment"])
        for other in labs():
            look = other.state.look()
            if other.state.experiment.name == kind and look.going and look.run != run.id:
                raise ControlError(f"run {look.run} goes on in the lab {kind!r} above; stop it, then open another one")
        lab = Lab(kind)
        if lab.state.reader is None or lab.state.reader.run.id != run.id:
            lab.open(str(run.path))
        return lab

    # --- display ------------------------------------------------------------------------------------------------
    def _ipython_display_(self) -> None:
        if headless():
            show_html(table_html(self.table(50), len(self.rows())))
            return
        if self._screen is None:
            from .runs_screen import RunsScreen

            self._screen = RunsScreen(self)
        show(self._screen.root)

    def _repr_html_(self) -> str | None:
        return None

    def __repr__(self) -> str:
        return f"Runs({str(self.folder)!r}): {len(self.rows())} of {len(self._listed)} runs"


def chosen(found: Sequence[Side], number: int | None, last: int = 0) -> Side:
    """Return one segment: by its index, or the last but `last` that has settled.

    Raises:
        ControlError: There is none.
    """
    if not found:
        raise ControlError("this run has no segment yet: its ranks never began; start it with: aiinfra resume RUN")
    if number is not None:
        for side in found:
            if side.segment.index == number:
                return side
        known = ", ".join(str(s.segment.index) for s in found)
        raise ControlError(f"segment: got {number}; allowed: {known}; see the run in its lab")
    settled = [s for s in found if not s.segment.transient] or list(found)
    return settled[max(len(settled) - 1 - last, 0)]


COLUMNS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("when", lambda: tr("When"), ""),
    ("experiment", lambda: tr("Experiment"), ""),
    ("state", lambda: tr("State"), ""),
    ("nodes", lambda: tr("Nodes"), "n"),
    ("quantity", lambda: tr("Main quantity"), ""),
    ("predicted", lambda: tr("Predicted"), "n"),
    ("measured", lambda: tr("Measured"), "n"),
    ("error", lambda: tr("Error"), "n"),
    ("note", lambda: tr("Note, or setup"), "aiinfra-wide"),
    ("id", lambda: tr("Run"), "aiinfra-id"),
)


def table_html(rows: Sequence[dict[str, str]], all_of: int) -> str:
    """Return the rows as a plain table, for a page without our style sheet; what to do where there are none."""
    if not rows:
        return f"<p>{escape(nothing())}</p>"
    head = "".join(f"<th>{escape(text())}</th>" for _, text, _ in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(r[k])}</td>" for k, _, _ in COLUMNS) + "</tr>" for r in rows)
    more = f"<p>{escape(tr('and {count} older runs', count=all_of - len(rows)))}</p>" if all_of > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def nothing() -> str:
    """What stands where there is no run."""
    return tr("Nothing was run yet. Open a lab, commit to a prediction and press Run; each run then is a row here.")


class Filler(threading.Thread):
    """Reads the runs of a page, one after the other, and tells of each; a newer one takes its place."""

    def __init__(self, runs: Runs, rows: Sequence[Listed], tell: Callable[[Filler], None]) -> None:
        super().__init__(daemon=True, name="aiinfra-runs")
        self._runs, self._rows, self._tell = runs, rows, tell
        self.ended = threading.Event()

    def run(self) -> None:
        """Read and tell, until done or no longer wanted."""
        for row in self._rows:
            if self.ended.is_set():
                return
            try:
                self._runs.reading.told(row)
            except LabError:  # its folder is gone: the next refresh says so
                continue
            self._tell(self)
