"""The lab on one screen: predict, run and change, compare. Layout and drawing only; what it shows is `LabState`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as ipw

from ..quantities import quantity
from ..texts import tr
from . import cards
from .actions import Actions
from .breaking import Breaking
from .controls import LIVE_SIGN, Field, grouped
from .curves import Sweeps
from .explain import Explanation
from .feed import Feed
from .live import Live
from .presenter import Presenter, together
from .state import LabState, Look
from .terms import glossary_html

__all__ = ["Screen", "together"]


class Screen(Presenter):
    """Widgets of one lab, and how a look is drawn on them.

    Args:
        state: What is shown and asked.
        primary: Fields shown first; the others are folded.
        actions: By button: run, pause, checkpoint, stop, resume, again.
    """

    setup: dict[str, Field]
    live: dict[str, Field]

    def __init__(self, state: LabState, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> None:
        super().__init__(state, primary, actions)
        self.feed_charts = Live([self.shown.chart(n) for n in self.shown.live], ["aiinfra-live"])
        self.compare_charts = Live([self.shown.chart(n) for n in self.shown.compared], ["aiinfra-compared"])
        sink = _Split(self.feed_charts, self.compare_charts)
        machine = state.session.machine
        self.feed = Feed(self.shown, sink, machine, Sweeps(self.exp, machine, wait=False))
        self._build(self._primary)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather what is drawn inside into one message for each group of charts."""
        with self.feed_charts.batch(), self.compare_charts.batch():
            yield

    # --- how a part is changed ----------------------------------------------------------------------------------
    def put(self, part: str, text: str) -> None:
        """Change the HTML of a part where it differs."""
        cards.put(getattr(self, part), text)

    def show(self, part: str, yes: bool) -> None:
        """Show or hide a part or a button."""
        cards.show(self.buttons[part] if part in self.buttons else getattr(self, part), yes)

    def button(self, name: str, *, locked: bool, text: str = "", tip: str = "") -> None:
        """Lock a button, and change its text or tip."""
        found = self.buttons[name]
        found.disabled, found.description, found.tooltip = locked, text or found.description, tip or found.tooltip

    def draw_actions(self, look: Look, *, locked: bool) -> None:
        """Show the answers to the experiment's own verbs."""
        self.actions.draw(look.asked, self.exp.tick, locked=locked)
        self.breaking.draw(look, self.exp.tick, locked=locked)
        self.explanation.draw(look)

    def guess_text(self) -> str:
        """Return what the learner typed."""
        return str(self.guess.value)

    # --- building -----------------------------------------------------------------------------------------------
    def _build(self, primary: list[str]) -> None:
        knobs = self.exp.spec.knobs()
        spec = self.state.spec
        self.setup = {n: Field(k, getattr(spec, n), self._set_up, most=self._most(k)) for n, k in knobs.items()}
        self.live = {
            n: Field(k, getattr(spec, n), self._ask, most=self._most(k), marked=False)
            for n, k in knobs.items()
            if k.live
        }
        self.header, self.failure, self.table = cards.html("head"), cards.html("failed"), cards.html("table-box")
        self.detail, self.meters, self.ranks, self.reveal = (
            cards.html(n) for n in ("detail", "meter-box", "rank-box", "reveal")
        )
        self.summary, self.log = cards.html("summary"), cards.html("log")
        self.root = ipw.VBox(
            [
                *(self.header, self.meters, self.failure),
                *(self._predict_card(primary), self._run_card(primary), self._compare_card()),
                ipw.HTML(glossary_html(self.shown.quantities)),
            ]
        )
        self.root.add_class("aiinfra-lab")
        self.watched = cards.html("table-box")
        self.comparison = ipw.VBox([self.table, self.watched, self.detail, self.compare_charts])
        self.comparison.add_class("aiinfra-lab")
        self.comparison.add_class("aiinfra-alone")

    def _predict_card(self, primary: list[str]) -> ipw.Widget:
        first = cards.box("fields", [self.setup[n].widget for n in primary])
        rest = grouped(tr("More settings"), {n: f for n, f in self.setup.items() if n not in primary})
        self.setup_box = cards.box(
            "setup", [first, rest, cards.note(f"{LIVE_SIGN} " + tr("can change while the run goes on"))]
        )
        self.guess = ipw.Text(
            placeholder=tr("your number, in {unit}", unit=self.unit), continuous_update=True, description=""
        )
        self.guess.add_class("aiinfra-guess")
        self.guess.tooltip = tr("What you expect, in {unit}", unit=self.unit)
        self.commit = self._button(
            tr("Commit"), "commit", tr("Write your prediction into the ledger; then the model shows its own"), "primary"
        )
        q = quantity(self.state.question)
        asked = tr("With this setup, what will the <b>{quantity}</b> be?", quantity=escape(q.label.lower()))
        ask = ipw.HTML(f"<p class='aiinfra-question'>{asked} <small>{escape(q.help)}</small></p>")
        self.guess_say = cards.html("guess-say")
        self.answer_box = cards.box("answer", [ask, cards.box("commit", [self.guess, self.commit]), self.guess_say])
        self.again = self._button(tr("Start over"), "again", tr("Choose another setup and predict again"))
        self.told = cards.box("told", [self.summary, self.reveal, self.again])
        self.asking = cards.box("predict", [self.setup_box, self.answer_box])
        return cards.card("1", tr("Predict"), [self.asking, self.told])

    def _run_card(self, primary: list[str]) -> ipw.Widget:
        tick = tr(self.exp.tick)
        self.buttons = {
            "run": self._button(tr("Run"), "run", tr("Start the run on real MPI ranks"), "primary"),
            "pause": self._button(tr("Pause"), "pause", tr("Hold every node after this {tick}", tick=tick)),
            "checkpoint": self._button(tr("Checkpoint"), "checkpoint", tr("Write the state to disk now")),
            "stop": self._button(tr("Stop"), "stop", tr("Finish this {tick}, write a checkpoint and end", tick=tick)),
            "resume": self._button(tr("Resume run"), "resume", tr("Go on from the last checkpoint"), "primary"),
        }
        first = self._in_sight
        knobs = cards.box("knobs", [self.live[n].widget for n in first])
        more = grouped(tr("More that can change"), {n: f for n, f in self.live.items() if n not in first})
        self.actions = Actions(self.exp, lambda verb, given: self.state.ask(verb=verb, arguments=given))
        self.breaking = Breaking(lambda verb, given: self.state.ask(verb=verb, arguments=given))
        side = cards.box("side", [knobs, more, self.actions.root, self.ranks, self.breaking.root, self.log])
        body = cards.box("body", [side, self.feed_charts])
        return cards.card("2", tr("Run and change"), [cards.box("toolbar", list(self.buttons.values())), body])

    def _compare_card(self) -> ipw.Widget:
        self.explanation = Explanation(self.state)
        shown = [self.table, self.compare_charts, self.detail, self.explanation.root]
        return cards.card("3", tr("Compare"), shown)

    def _button(self, text: str, action: str, tip: str, style: str = "") -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tip, button_style=style)
        button.add_class("aiinfra-button")
        button.on_click(lambda _: self.act(action))
        return button


class _Split:
    """A sink of two live widgets: each chart goes where it is."""

    def __init__(self, *lives: Live) -> None:
        self._of = {c["name"]: live for live in lives for c in live.charts}

    def put(self, chart: str, source: str, columns: Any, *, seen: bool | None = None) -> None:
        self._of[chart].put(chart, source, columns, seen=seen)

    def append(self, chart: str, source: str, columns: Any, whole: Any) -> None:
        self._of[chart].append(chart, source, columns, whole)

    def span(self, chart: str, low: float, high: float) -> None:
        self._of[chart].span(chart, low, high)

    def say(self, chart: str, text: str) -> None:
        self._of[chart].say(chart, text)
