"""The run browser in a notebook: search, a table to pick from, and what can be done with what is picked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as ipw
import traitlets

from ..errors import LabError
from ..runs.trash import trash_of
from ..texts import tr
from . import cards
from .header import CHIPS
from .runs import COLUMNS, PAGE, Filler, Runs, nothing
from .runs_compare import Side, side_by_side_html
from .runs_index import cells
from .theme import STATIC, style_sheet


class RunTable(anywidget.AnyWidget):
    """The rows of one page; `picked` are the ids that a person ticked, in that order, on whatever page."""

    _esm = (STATIC / "runs.js").read_text(encoding="utf-8")
    _css = style_sheet()
    rows: Any = traitlets.List().tag(sync=True)
    columns: Any = traitlets.List().tag(sync=True)
    picked: Any = traitlets.List().tag(sync=True)
    words: Any = traitlets.Dict().tag(sync=True)


class RunsScreen:
    """Widgets of the run browser; what they do is `Runs`.

    Args:
        runs: What is shown.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.lock = threading.RLock()
        self._filler: Filler | None = None
        self._sides: list[list[Side]] = []
        self._build()
        self.draw()

    # --- building -----------------------------------------------------------------------------------------------
    def _build(self) -> None:
        sought = tr("words in id, note or setup")
        self.search = ipw.Text(self.runs.text, placeholder=sought, description=tr("Search"), continuous_update=False)
        self.kind = ipw.Dropdown(options=self._kinds(), value=self.runs.experiment, description=tr("Experiment"))
        for control in (self.search, self.kind):
            control.add_class("aiinfra-control")
            control.observe(self._filtered, "value")
        self.back = cards.button(tr("Newer"), tr("The page before"), lambda: self._turn(-1))
        self.on = cards.button(tr("Older"), tr("The next page"), lambda: self._turn(1))
        again = cards.button(tr("Refresh"), tr("Look into the folder again"), self._refresh)
        self.count = cards.html("runs-count")
        bar = cards.box("runs-bar", [self.search, self.kind, again, self.back, self.on, self.count])
        words = {"pick": tr("Pick run {run}", run="{run}"), "picked": tr("Picked"), "caption": tr("Runs, newest first")}
        columns = [(key, text(), kind) for key, text, kind in COLUMNS]
        self.table = RunTable(columns=columns, words=words)
        self.table.add_class("aiinfra-runs-box")
        self.table.observe(lambda _: self._picked(), "picked")
        self.empty, self.hint, self.problem = cards.html("empty"), cards.html("hint"), cards.html("problem-box")
        self.buttons = {
            "open": cards.button(tr("Open in a lab"), tr("Show this run with its figures"), self._open, "primary"),
            "compare": cards.button(tr("Compare"), tr("Set two segments side by side"), self._compare),
            "export": cards.button(
                tr("Export"), tr("Pack into one archive that another person can rerun"), self._export
            ),
            "delete": cards.button(
                tr("Delete"), tr("Move to the trash, after you have confirmed it"), self._ask_delete
            ),
        }
        self.trash_box, self.panel = cards.box("toolbar", []), cards.box("runs-panel", [])
        tools = cards.box("toolbar", [*self.buttons.values(), self.hint])
        self.root = cards.box(
            "run-browser", [bar, self.empty, self.table, tools, self.problem, self.panel, self.trash_box]
        )
        self.root.add_class("aiinfra-lab")

    def _kinds(self) -> list[tuple[str, str]]:
        return [(tr("all"), ""), *((e, e) for e in dict.fromkeys([*self.runs.experiments, self.runs.experiment]) if e)]

    # --- what a person does -------------------------------------------------------------------------------------
    def _try(self, act: Callable[[], None]) -> None:
        cards.put(self.problem, "")
        try:
            act()
        except (LabError, OSError) as error:
            cards.put(self.problem, f'<div class="aiinfra-problem" role="alert">{escape(str(error))}</div>')

    def _filtered(self, _: Any) -> None:
        self.runs.filter(self.search.value, self.kind.value or "")
        self.draw()

    def _turn(self, by: int) -> None:
        self.runs.page += by
        self.draw()

    def _refresh(self) -> None:
        self.runs.refresh()
        self.kind.options = self._kinds()
        self.kind.value = self.runs.experiment
        self.draw()

    def _picked(self) -> None:
        self._sides = []
        self._show([])
        self._tools()

    def _open(self) -> None:
        def act() -> None:
            lab = self.runs.open(self.table.picked[0])
            self._show([cards.box("toolbar", [self._closing(tr("Close"))]), lab._the_screen().root])

        self._try(act)

    def _compare(self) -> None:
        def act() -> None:
            picked = list(self.table.picked)
            self._sides = [self.runs.segments(name) for name in (picked[0], picked[-1])]
            if not all(self._sides):
                raise LabError(tr("One of them has no segment: its ranks never began. Pick another one."))
            settled = [
                [i for i, s in enumerate(found) if not s.segment.transient] or [len(found) - 1] for found in self._sides
            ]
            start = [settled[0][max(len(settled[0]) - (2 if len(picked) == 1 else 1), 0)], settled[1][-1]]
            said = cards.html("pair-box")
            drops = [self._drop(letter, found, at) for letter, found, at in zip("AB", self._sides, start, strict=True)]

            def drawn(_: Any = None) -> None:
                a, b = (found[d.value] for found, d in zip(self._sides, drops, strict=True))
                cards.put(said, side_by_side_html(a, b))

            for drop in drops:
                drop.observe(drawn, "value")
            drawn()
            self._show([cards.box("toolbar", [*drops, self._closing(tr("Close"))]), said])

        self._try(act)

    def _drop(self, letter: str, found: list[Side], at: int) -> ipw.Widget:
        options = [(s.name, i) for i, s in enumerate(found)]
        drop = ipw.Dropdown(options=options, value=at, description=letter)
        drop.add_class("aiinfra-control")
        drop.add_class("aiinfra-pick-segment")
        return drop

    def _export(self) -> None:
        name = ipw.Text(value=f"{self.table.picked[0]}.zip", description=tr("File"))
        name.add_class("aiinfra-control")

        def pack() -> None:
            path = self.runs.export(list(self.table.picked), Path(name.value))
            self._show([cards.note(tr("Written: {path}", path=path))])

        doing = cards.button(tr("Write archive"), tr("Nothing is ever overwritten"), lambda: self._try(pack), "primary")
        self._show([cards.box("toolbar", [name, doing, self._closing(tr("Cancel"))])])

    def _ask_delete(self) -> None:
        names = list(self.table.picked)

        def act() -> None:
            self.runs.delete(names)
            self.table.picked = []
            self.draw()

        items = "".join(f"<li>{escape(n)}</li>" for n in names)
        where = tr("They go to {folder}, from where they can be put back.", folder=trash_of(self.runs.folder))
        asked = ipw.HTML(
            f"<p><b>{escape(tr('Delete {count} runs?', count=len(names)))}</b> {escape(where)}</p><ul>{items}</ul>"
        )
        sure = cards.button(tr("Move to the trash"), tr("Delete what is listed"), lambda: self._try(act), "danger")
        self._show([asked, cards.box("toolbar", [sure, self._closing(tr("Keep"))])])

    def _ask_empty(self) -> None:
        def act() -> None:
            self.runs.empty_trash()
            self.draw()

        count = len(self.runs.trash)
        asked = ipw.HTML(
            f"<p><b>{escape(tr('Delete {count} runs for good?', count=count))}</b> {escape(tr('This cannot be undone.'))}</p>"
        )
        sure = cards.button(tr("Delete for good"), tr("Empty the trash"), lambda: self._try(act), "danger")
        self._show([asked, cards.box("toolbar", [sure, self._closing(tr("Keep"))])])

    def _restore(self) -> None:
        def act() -> None:
            self.runs.put_back()
            self.draw()

        self._try(act)

    def _closing(self, text: str) -> ipw.Button:
        return cards.button(text, tr("Close this part"), lambda: self._show([]))

    def _show(self, children: list[ipw.Widget]) -> None:
        self.panel.children = children

    # --- drawing ------------------------------------------------------------------------------------------------
    def draw(self) -> None:
        """Show the page that the filter leaves, and have what is not known of it read."""
        with self.lock:
            rows = self.runs.rows()
            pages = max(1, -(-len(rows) // PAGE))
            self.runs.page = min(max(self.runs.page, 0), pages - 1)
            self._show([])
            self._fill()
            self.back.disabled, self.on.disabled = self.runs.page == 0, self.runs.page >= pages - 1
            for button in (self.back, self.on):
                cards.show(button, pages > 1)
            place = tr(", page {page} of {pages}", page=self.runs.page + 1, pages=pages) if pages > 1 else ""
            cards.put(self.count, f'<span role="status">{escape(tr("{count} runs", count=len(rows)) + place)}</span>')
            text = (
                ""
                if rows
                else nothing()
                if not self.runs._listed
                else tr("No run matches. Use fewer words, or choose all experiments.")
            )
            cards.put(self.empty, f'<p class="aiinfra-empty">{escape(text)}</p>' if text else "")
            self._tools()
            self._draw_trash()
            if self._filler is not None:
                self._filler.ended.set()
            self._filler = Filler(self.runs, self.runs.on_page(), self._told)
            self._filler.start()

    def _told(self, by: Filler) -> None:
        with self.lock:
            if by is self._filler:
                self._fill()

    def _fill(self) -> None:
        found = []
        for row in self.runs.on_page():
            told = self.runs.reading.known(row)
            kind, sign = CHIPS.get(told.state if told else "", ("calm", "\u25cb"))
            shown = cells(row, told)
            found.append({**shown, "kind": kind, "sign": sign, "state_word": tr(shown["state"])})
        self.table.rows = found

    def _tools(self) -> None:
        count = len(self.table.picked)
        self.buttons["open"].disabled = count != 1
        self.buttons["compare"].disabled = count not in {1, 2}
        for name in ("export", "delete"):
            self.buttons[name].disabled = not count
        says = {
            0: tr("Tick a run to open it or to compare its segments, two to compare them."),
            1: tr("Compare sets two segments of this run side by side; tick a second run to compare with that."),
            2: tr("A is the first that you ticked, B the second."),
        }.get(count, tr("{count} runs are ticked; comparing takes two.", count=count))
        cards.put(self.hint, f'<span class="aiinfra-note" role="status">{escape(says)}</span>')

    def _draw_trash(self) -> None:
        names = self.runs.trash
        if not names:
            self.trash_box.children = []
            return
        text = tr("{count} deleted runs in the trash.", count=len(names))
        self.trash_box.children = [
            cards.note(text),
            cards.button(tr("Put the newest back"), names[0], self._restore),
            cards.button(tr("Empty the trash"), tr("Asks before it deletes for good"), self._ask_empty),
        ]
