"""A lab on one page of one browser. What it shows and does is `widgets.presenter`'s; here are its Panel widgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from ..quantities import quantity
from ..texts import tr
from ..widgets.controls import LIVE_SIGN
from ..widgets.presenter import Presenter
from ..widgets.state import Look
from . import parts
from .charts import PAPERS, Sheet
from .controls import Field, forms, grouped
from .parts import pn

if TYPE_CHECKING:
    from .stage import Room

#: Parts that hold HTML, by the class that the style sheet knows.
TEXTS = {
    "header": "head", "failure": "failed", "table": "table-box", "watched": "table-box", "detail": "detail", "meters": "meter-box",
    "ranks": "rank-box", "reveal": "reveal", "summary": "summary", "log": "log", "guess_say": "guess-say",
}  # fmt: skip


class View(Presenter):
    """The panels of one lab in one browser.

    Args:
        room: The lab, and everybody who looks at it.
        actions: By button: commit, run, pause, checkpoint, stop, resume, again.
        theme: light or dark.
    """

    setup: dict[str, Field]
    live: dict[str, Field]

    def __init__(self, room: Room, actions: Mapping[str, Callable[[], None]], theme: str) -> None:
        super().__init__(room.state, room.primary, actions)
        self._room, self._spec = room, room.state.spec
        self.watching = room.watching
        self.shown = room.shown  # the same axes on every page, whenever it was opened
        self.parts = {name: parts.html("", kind) for name, kind in TEXTS.items()}
        known = room.everyone.known
        charts = [self.shown.chart(name, known.data.get(name)) for name in self.shown.names]
        self.sheet = Sheet(charts, known, PAPERS[theme])
        self._fields()
        self.buttons = self._buttons()
        self.forms = forms(self.exp, lambda verb, given: self.state.ask(verb=verb, arguments=given))
        self.root = parts.column(
            "lab",
            self.parts["header"],
            self.parts["meters"],
            self.parts["failure"],
            self._predict_card(),
            self._run_card(),
        )
        self.comparison = self._compare_card()

    # --- building -----------------------------------------------------------------------------------------------
    def _fields(self) -> None:
        knobs, spec = self.exp.spec.knobs(), self.state.spec
        self.setup = {n: Field(k, getattr(spec, n), self._set_up, most=self._most(k)) for n, k in knobs.items()}
        self.live = {
            n: Field(k, getattr(spec, n), self._ask, most=self._most(k), marked=False)
            for n, k in knobs.items()
            if k.live
        }

    def _buttons(self) -> dict[str, Any]:
        tick = self.exp.tick

        def one(name: str, text: str, tip: str, first: bool = False) -> Any:
            return parts.button(text, tip, lambda: self.act(name), first=first)

        return {
            "commit": one("commit", tr("Commit"), tr("Write your prediction into the ledger; then the model shows its own"), True),
            "again": one("again", tr("Start over"), tr("Choose another setup and predict again")),
            "run": one("run", tr("Run"), tr("Start the run on real MPI ranks"), True),
            "pause": one("pause", tr("Pause"), tr("Hold every node after this {tick}", tick=tick)),
            "checkpoint": one("checkpoint", tr("Checkpoint"), tr("Write the state to disk now")),
            "stop": one("stop", tr("Stop"), tr("Finish this {tick}, write a checkpoint and end", tick=tick)),
            "resume": one("resume", tr("Resume run"), tr("Go on from the last checkpoint"), True),
        }  # fmt: skip

    def _predict_card(self) -> Any:
        first = [self.setup[n].widget for n in self._primary]
        rest = grouped(tr("More settings"), {n: f for n, f in self.setup.items() if n not in self._primary})
        mark = parts.html(f'<p class="aiinfra-note">{LIVE_SIGN} {escape(tr("can change while the run goes on"))}</p>')
        q = quantity(self.state.question)
        words = tr("With this setup, what will the {quantity} be?", quantity=q.label.lower())
        ask = parts.html(f'<p class="aiinfra-question">{escape(words)} <small>{escape(q.help)}</small></p>')
        self.guess = pn.widgets.TextInput(
            placeholder=tr("your number, in {unit}", unit=self.unit), label=tr("Your prediction ({unit})", unit=self.unit),
            stylesheets=[parts.STYLE], css_classes=["guess"], margin=0, width=260,
        )  # fmt: skip
        self.guess.param.watch(lambda _: self.act("commit"), "enter_pressed")
        row = parts.column("row", self.guess, self.buttons["commit"])
        answer = parts.column("answer", ask, row, self.parts["guess_say"])
        self.asking = parts.column("asking", parts.column("setup", parts.column("fields", *first), rest, mark), answer)
        self.told = parts.column("told", self.parts["summary"], self.parts["reveal"], self.buttons["again"])
        return parts.card("1", tr("Predict"), self.asking, self.told)

    def _run_card(self) -> Any:
        bar = parts.column("row", *(self.buttons[n] for n in ("run", "pause", "checkpoint", "stop", "resume")))
        knobs = parts.column("knobs", *(self.live[n].widget for n in self._in_sight))
        more = grouped(tr("More that can change"), {n: f for n, f in self.live.items() if n not in self._in_sight})
        *own, breaking = (f.root for f in self.forms)
        verbs = [*([parts.html(f"<h4>{escape(tr('Actions'))}</h4>"), *own] if own else []), breaking]
        side = parts.column("side", knobs, more, *verbs, self.parts["ranks"], self.parts["log"])
        charts = parts.column("charts", *(self.sheet.cards[n].root for n in self.shown.live))
        return parts.card("2", tr("Run and change"), bar, parts.column("body", side, charts))

    def _compare_card(self) -> Any:
        charts = parts.column("charts", *(self.sheet.cards[n].root for n in self.shown.compared))
        p = self.parts
        return parts.card("3", tr("Compare"), p["table"], p["watched"], charts, p["detail"])

    # --- how a part is changed ----------------------------------------------------------------------------------
    def put(self, part: str, text: str) -> None:
        """Change the HTML of a part where it differs."""
        parts.put(self.parts[part], text)

    def show(self, part: str, yes: bool) -> None:
        """Show or hide a part or a button."""
        found = {**self.parts, **self.buttons, "asking": self.asking, "told": self.told}[part]
        parts.show(found, yes)

    def button(self, name: str, *, locked: bool, text: str = "", tip: str = "") -> None:
        """Lock a button, and change its text or tip."""
        found = self.buttons[name]
        for key, value in {"disabled": locked, "label": text, "description": tip}.items():
            if (value or key == "disabled") and getattr(found, key) != value:
                setattr(found, key, value)

    def draw_actions(self, look: Look, *, locked: bool) -> None:
        """Show the answers to the experiment's own verbs."""
        for form in self.forms:
            form.draw(look.asked, self.exp.tick, locked=locked)

    def guess_text(self) -> str:
        """Return what the learner typed."""
        return str(self.guess.value_input or self.guess.value)

    def act(self, action: str) -> None:
        """Carry out a button, and let every other page see what came of it."""
        with self._room.turn_of(self):
            super().act(action)
        self._room.draw(self.state.look(), but=self)

    def draw(self, look: Look) -> None:
        """Show a look, and a setup that somebody changed on another page."""
        if self._spec != self.state.spec:
            self._spec = self.state.spec
            for name, field in self.setup.items():
                if name not in self._wished:
                    field.set(getattr(self._spec, name))
            self._room.draw(look, but=self)
        super().draw(look)
        self.sheet.draw()
