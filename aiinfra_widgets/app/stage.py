"""Where labs are shown instead of in a notebook: one room for each lab, which every page of it looks into."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..widgets.curves import Sweeps
from ..widgets.feed import Feed, Shown
from ..widgets.state import LabState, Look
from .charts import Everyone
from .view import View


@dataclass(frozen=True, slots=True)
class Part:
    """A place for a part of a lab: its controls with the live figures, or its comparison."""

    room: Room
    name: str


class _Slot:
    """One page: its view, and the newest look that it has not drawn yet."""

    def __init__(self, view: View, document: Any) -> None:
        self.view, self.document = view, document
        self._look: Look | None = None
        self._lock = threading.Lock()

    def draw(self, look: Look) -> None:
        """Draw soon, where the page may be changed; a browser that is slow skips looks, never points."""
        with self._lock:
            waiting, self._look = self._look is not None, look
        if not waiting:
            self.document.add_next_tick_callback(self._now)

    def _now(self) -> None:
        with self._lock:
            look, self._look = self._look, None
        if look is not None:
            self.view.draw(look)


class Room:
    """What a `Lab` takes for its screen: one feed of the run, and all the pages that show it.

    Args:
        state: Of the lab, shared by all pages: a projector and a laptop see the same run.
        primary: Fields shown first.
        actions: By button.
    """

    def __init__(self, state: LabState, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> None:
        self.state, self.primary, self._actions = state, list(primary), actions
        self.watching: tuple[str, ...] = ()
        self.everyone = Everyone()
        prediction, _ = state.predict()
        values = prediction.values if prediction else {}
        typical = {k: float(v.value) for k, v in values.items() if isinstance(v.value, int | float)}
        self.shown = Shown(state.experiment, typical, prediction)
        machine = state.session.machine
        self.feed = Feed(self.shown, self.everyone, machine, Sweeps(state.experiment, machine, wait=False))
        self.root, self.comparison = Part(self, "root"), Part(self, "comparison")
        self._slots: list[_Slot] = []
        self._asker: View | None = None
        self._turn = threading.RLock()
        self._problem = ""

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold pages that are being opened until a look is whole."""
        with self.everyone.lock:
            yield

    @property
    def problem(self) -> str:
        """What every page says at its top."""
        return self._problem

    @problem.setter
    def problem(self, text: str) -> None:
        self._problem = text
        for slot in list(self._slots):
            slot.view.problem = text

    def open(self, document: Any, theme: str) -> View:
        """Return a view for a page that has just been opened, with all that is known so far."""
        with self.everyone.lock:
            view = View(self, self._actions, theme)
            view.problem = self._problem
            slot = _Slot(view, document)
            self.everyone.sheets.append(view.sheet)
            self._slots.append(slot)
        document.on_session_destroyed(lambda _: self._leave(slot))
        view.draw(self.state.look())
        return view

    def _leave(self, slot: _Slot) -> None:
        with self.everyone.lock:
            self._slots.remove(slot)
            self.everyone.sheets.remove(slot.view.sheet)

    def draw(self, look: Look, but: View | None = None) -> None:
        """Show a look on every page."""
        for slot in list(self._slots):
            if slot.view is not but:
                slot.draw(look)

    @contextmanager
    def turn_of(self, view: View) -> Iterator[None]:
        """Let one page ask at a time, and remember which: the guess is read from it."""
        with self._turn:
            self._asker = view
            try:
                yield
            finally:
                self._asker = None

    def read_guess(self) -> float:
        """Return the number that was typed on the page that commits, in base units.

        Raises:
            SpecError: It cannot be read.
        """
        assert self._asker is not None, "only a page commits"
        return self._asker.read_guess()


class AppStage:
    """Takes what the cells of a notebook show; see `widgets.notebook.Stage`."""

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.shown: list[Any] = []

    def screen(self, state: Any, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> Room:
        """Return the room of a lab."""
        self.rooms.append(Room(state, primary, actions))
        return self.rooms[-1]

    def show(self, item: Any) -> None:
        """Keep what the cell that runs shows."""
        self.shown.append(item)

    def take(self) -> list[Any]:
        """Return what was shown since the last time."""
        found, self.shown = self.shown, []
        return found
