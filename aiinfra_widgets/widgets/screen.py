"""The lab on one screen: predict, run and change, compare. Layout and drawing only; what it shows is `LabState`'s."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

import ipywidgets as ipw

from ..errors import LabError
from ..experiment import Knob
from ..machine.limits import limit
from ..quantities import Prediction, quantity
from . import cards, header
from .actions import Actions
from .compare import comparison_html, detail_html, watched_html
from .controls import LIVE_SIGN, Field, blame, grouped
from .curves import Sweeps
from .feed import Feed, Shown
from .live import Live
from .meters import meters_html
from .ranks import ranks_html
from .state import LabState, Look
from .words import amount

#: Fields that are shown unfolded when the notebook names none.
FIRST_FIELDS = 4
#: A slider of the node count ends here, times the cores; more can be typed into `Lab.set`.
NODES_PER_CORE = 4


class Screen:
    """Widgets of one lab, and how a look is drawn on them.

    Args:
        state: What is shown and asked.
        primary: Fields shown first; the others are folded.
        actions: By button: run, pause, checkpoint, stop, resume, again.
    """

    def __init__(self, state: LabState, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> None:
        self.state, self.exp = state, state.experiment
        self.lock = threading.RLock()
        self.problem = ""
        self._actions = actions
        self._waiting: dict[str, list[str]] = {}
        #: What was refused, before and in the run: some fields go only together, so it is asked again with the next change.
        self._wished: dict[str, Any] = {}
        self._wished_live: dict[str, Any] = {}
        self._said: set[str] = set()
        self._revealed: tuple[Any, ...] = ()
        prediction, _ = state.predict()
        self.shown = Shown(self.exp, _typical(prediction), prediction)
        self.feed_charts = Live([self.shown.chart(n) for n in self.shown.live], ["aiinfra-live"])
        self.compare_charts = Live([self.shown.chart(n) for n in self.shown.compared], ["aiinfra-compared"])
        sink = _Split(self.feed_charts, self.compare_charts)
        machine = state.session.machine
        self.feed = Feed(self.shown, sink, machine, Sweeps(self.exp, machine, wait=False))
        self._build(list(primary) or self._first())

    def _first(self) -> list[str]:
        knobs = self.exp.spec.knobs()
        return ["nodes", *[n for n, k in knobs.items() if k.live and n != "nodes"]][:FIRST_FIELDS]

    def _most(self, knob: Knob) -> float | None:
        machine = self.state.session.machine
        if knob.name != "nodes" and not knob.name.endswith("_size"):  # a degree of a plan counts nodes, too
            return None
        return (
            min(limit(machine)[0], NODES_PER_CORE * machine.cores + self.exp.spec.coordinators)
            - self.exp.spec.coordinators
        )

    # --- building -----------------------------------------------------------------------------------------------
    def _build(self, primary: list[str]) -> None:
        self._primary = primary = list(dict.fromkeys(primary))
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
            [self.header, self.failure, self._predict_card(primary), self._run_card(primary), self._compare_card()]
        )
        self.root.add_class("aiinfra-lab")
        self.watched, self.watching = cards.html("table-box"), ()
        self.comparison = ipw.VBox([self.table, self.watched, self.detail, self.compare_charts])
        self.comparison.add_class("aiinfra-lab")
        self.comparison.add_class("aiinfra-alone")

    def _predict_card(self, primary: list[str]) -> ipw.Widget:
        first = cards.box("fields", [self.setup[n].widget for n in primary])
        rest = grouped("More settings", {n: f for n, f in self.setup.items() if n not in primary})
        self.setup_box = cards.box("setup", [first, rest, cards.note(f"{LIVE_SIGN} can change while the run goes on")])
        self._summary_fields = [*primary, *[n for n in self.setup if n not in primary]]
        axis = self.shown.axes.get(self.state.question)
        self.unit = axis.unit if axis else quantity(self.state.question).unit
        self.guess = ipw.Text(placeholder=f"your number, in {self.unit}", continuous_update=True, description="")
        self.guess.add_class("aiinfra-guess")
        self.guess.tooltip = f"What you expect, in {self.unit}"
        self.commit = self._button(
            "Commit", "commit", "Write your prediction into the ledger; then the model shows its own", "primary"
        )
        q = quantity(self.state.question)
        ask = ipw.HTML(
            f"<p class='aiinfra-question'>With this setup, what will the <b>{escape(q.label.lower())}</b> be? "
            f"<small>{escape(q.help)}</small></p>"
        )
        self.guess_say = cards.html("guess-say")
        self.answer_box = cards.box("answer", [ask, cards.box("commit", [self.guess, self.commit]), self.guess_say])
        self.again = self._button("Start over", "again", "Choose another setup and predict again")
        self.told = cards.box("told", [self.summary, self.reveal, self.again])
        self.asking = cards.box("predict", [self.setup_box, self.answer_box])
        return cards.card("1", "Predict", [self.asking, self.told])

    def _run_card(self, primary: list[str]) -> ipw.Widget:
        self.buttons = {
            "run": self._button("Run", "run", "Start the run on real MPI ranks", "primary"),
            "pause": self._button("Pause", "pause", f"Hold every node after this {self.exp.tick}"),
            "checkpoint": self._button("Checkpoint", "checkpoint", "Write the state to disk now"),
            "stop": self._button("Stop", "stop", f"Finish this {self.exp.tick}, write a checkpoint and end"),
            "resume": self._button("Resume run", "resume", "Go on from the last checkpoint", "primary"),
        }
        first = [n for n in ("nodes", *primary) if n in self.live]
        self._in_sight = first = list(dict.fromkeys(first))
        knobs = cards.box("knobs", [self.live[n].widget for n in first])
        more = grouped("More that can change", {n: f for n, f in self.live.items() if n not in first})
        self.actions = Actions(self.exp, lambda verb, given: self.state.ask(verb=verb, arguments=given))
        side = cards.box("side", [knobs, more, self.actions.root, self.ranks, self.log])
        body = cards.box("body", [side, self.feed_charts])
        return cards.card("2", "Run and change", [cards.box("toolbar", list(self.buttons.values())), body])

    def _compare_card(self) -> ipw.Widget:
        return cards.card("3", "Compare", [self.table, self.compare_charts, self.detail, self.meters])

    def _button(self, text: str, action: str, tip: str, style: str = "") -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tip, button_style=style)
        button.add_class("aiinfra-button")
        button.on_click(lambda _: self.act(action))
        return button

    # --- what a person does -------------------------------------------------------------------------------------
    def act(self, action: str) -> None:
        """Carry out a button; whatever goes wrong is said on the screen."""
        self.problem = ""
        cards.put(self.guess_say, "")
        try:
            self._actions[action]()
        except LabError as error:
            if action == "commit":
                text = str(error).removeprefix(f"{quantity(self.state.question).label}: ")
                cards.put(
                    self.guess_say, f'<span class="aiinfra-say aiinfra-say-bad" role="alert">{escape(text)}</span>'
                )
            else:
                self.problem = str(error)
        self.draw(self.state.look())

    def read_guess(self) -> float:
        """Return the learner's number in base units.

        Raises:
            SpecError: It cannot be read.
        """
        q = quantity(self.state.question)
        knob = Knob(q.label, q.label, "float", 0.0, q.help, q.unit, 0.0, 1e9, (), False, False, "", None)
        axis, text = self.shown.axes.get(q.name), self.guess.value.strip().replace(",", ".")
        try:
            return float(text) / (axis.factor if axis else 1.0)
        except ValueError:
            return float(knob.parse(text))

    def _set_up(self, field: Field, value: Any) -> None:
        try:
            together(self._wished, field.knob.name, value, self.state.set_up)
            for each in self.setup.values():
                each.say("")
            self.problem = ""
            for name, live in self.live.items():
                live.set(getattr(self.state.spec, name))
        except LabError as error:
            rest = blame(self.setup, str(error))
            if rest:
                field.say(rest, "bad")
        self.draw(self.state.look())

    def _ask(self, field: Field, value: Any) -> None:
        name = field.knob.name
        if value == getattr(self.state.look().spec, name) and name not in self._waiting:
            self._wished_live.pop(name, None)
            return
        try:
            asked = together(self._wished_live, name, value, self.state.ask)
        except LabError as error:
            rest = blame(self.live, str(error))
            if rest:
                field.say(rest, "bad")
            return
        for each in asked.fields:
            self._waiting.setdefault(each, []).append(asked.id)
            self.live[each].say("asked ...", "wait")

    # --- drawing ------------------------------------------------------------------------------------------------
    def draw(self, look: Look) -> None:
        """Show a look; only what differs is sent to the browser."""
        with self.lock:
            cards.put(self.header, header.header_html(self.exp, look, self.problem, self._in_sight))
            cards.put(self.failure, header.failure_html(look))
            cards.show(self.failure, bool(self.failure.value))
            self._draw_predict(look)
            self._draw_run(look)
            cards.put(self.table, comparison_html(self.exp, look.comparisons, look.guess))
            cards.put(self.detail, detail_html(self.exp, look.comparisons))
            cards.put(self.watched, watched_html(self.exp, look.comparisons, self.watching))
            cards.put(self.meters, meters_html(look.segments))

    def _draw_predict(self, look: Look) -> None:
        open_ = look.phase == "setup" or (look.phase == "ended" and look.guess is None and not look.run)
        cards.show(self.asking, open_)
        cards.show(self.told, not open_)
        if not open_ and self._revealed != (look.guess, self.state.spec):
            self._revealed = (look.guess, self.state.spec)
            prediction, refused = self.state.predict()
            cards.put(self.reveal, header.reveal_html(self.exp, look.guess, prediction, refused))
            cards.put(self.summary, spec_html(self.state, self._summary_fields, len(self._primary)))
        cards.show(self.again, not look.going)

    def _draw_run(self, look: Look) -> None:
        b, going = self.buttons, look.going
        enabled = going and look.status is not None and look.status.state not in {"new", "starting"}
        b["run"].disabled = look.phase != "committed"
        b["run"].tooltip = (
            "Start the run on real MPI ranks" if look.phase == "committed" else "Commit your prediction first"
        )
        b["pause"].description = "Resume" if look.paused else "Pause"
        for name in ("pause", "checkpoint"):
            b[name].disabled = not enabled
        b["stop"].disabled = not going
        cards.show(b["resume"], look.can_resume and not going)
        if not enabled:
            self._wished_live.clear()
        for name, field in self.live.items():
            field.lock(not enabled)
            self._answer(name, field, look)
        self.actions.draw(look.asked, self.exp.tick, locked=not enabled)
        cards.put(self.ranks, ranks_html(self.exp, look))
        cards.put(self.log, log_html(self.exp.tick, look))

    def _answer(self, name: str, field: Field, look: Look) -> None:
        """Show what became of the last request for a field, and follow changes that others made."""
        waiting = self._waiting.get(name, [])
        answers = {a.id: a for a in look.asked}
        for request in list(waiting):
            found = answers.get(request)
            if found is None or found.answer is None:
                continue
            waiting.remove(request)
            if waiting:
                continue
            del self._waiting[name]
            result = found.result(self.exp.tick)
            field.say(result[:1].upper() + result[1:], "bad" if found.refused else "good")
        if name not in self._waiting and name not in self._wished_live and look.spec is not None:
            field.set(getattr(look.spec, name))


def together(wished: dict[str, Any], name: str, value: Any, ask: Callable[[dict[str, Any]], Any]) -> Any:
    """Ask for a field with those that were refused before, else for it alone; remember it where that is refused, too.

    Args:
        wished: What was refused so far, by field; what is asked successfully leaves it.
        name, value: The field.
        ask: Asks for fields at once.

    Raises:
        LabError: It was refused alone.
    """
    earlier = {n: v for n, v in wished.items() if n != name}
    if earlier:
        with suppress(LabError):
            found = ask({**earlier, name: value})
            wished.clear()
            return found
    wished[name] = value
    found = ask({name: value})
    del wished[name]
    return found


def _typical(prediction: Prediction | None) -> dict[str, float]:
    values = prediction.values if prediction else {}
    return {k: float(v.value) for k, v in values.items() if isinstance(v.value, int | float)}


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


def spec_html(state: LabState, names: list[str], always: int) -> str:
    """Return the setup in one line: the first `always` of `names`, and what differs from its default."""
    knobs = state.experiment.spec.knobs()
    said = [n for i, n in enumerate(names) if i < always or getattr(state.spec, n) != knobs[n].default]
    values = {n: getattr(state.spec, n) for n in said}
    words = {n: ("off", "on")[v] if isinstance(v, bool) else amount(knobs[n].unit, v) for n, v in values.items()}
    items = "".join(
        f"<span title='{escape(knobs[n].help)}'>{escape(knobs[n].label)} <b>{escape(words[n])}</b></span>" for n in said
    )
    return f'<div class="aiinfra-spec">{items}</div>'


def log_html(tick: str, look: Look, most: int = 4) -> str:
    """Return the last few requests and their answers."""
    if not look.asked:
        return ""
    items = "".join(f"<li>{escape(a.outcome(tick))}</li>" for a in list(look.asked)[: -most - 1 : -1])
    return f'<div class="aiinfra-asked"><b>Asked</b><ul role="log">{items}</ul></div>'
