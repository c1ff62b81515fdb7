"""What a lab's screen does with a person's input and with a look, whatever draws it: ipywidgets in a notebook, Panel in the app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from ..errors import LabError
from ..experiment import Knob
from ..machine.limits import limit
from ..quantities import Prediction, quantity
from ..texts import told, tr
from . import header
from .compare import comparison_html, detail_html, watched_html
from .controls import Control, blame
from .feed import Shown
from .meters import glance_html
from .noticed import noticed_html
from .ranks import ranks_html
from .state import LabState, Look
from .words import amount

#: Fields that are shown unfolded when the notebook names none.
FIRST_FIELDS = 4
#: A slider of the node count ends here, times the cores; more can be typed into `Lab.set`.
NODES_PER_CORE = 4


class Presenter:
    """The part of a screen that knows no widgets.

    A renderer makes the controls `setup` and `live`, and says how a part is changed: `put`, `show`, `button`, `draw_actions`.

    Args:
        state: What is shown and asked.
        primary: Fields shown first; the others are folded.
        actions: By button: commit, run, pause, checkpoint, stop, resume, again.
    """

    setup: Mapping[str, Control]
    live: Mapping[str, Control]

    def __init__(self, state: LabState, primary: Sequence[str], actions: Mapping[str, Callable[[], None]]) -> None:
        self.state, self.exp = state, state.experiment
        self.lock = threading.RLock()
        self.problem = ""
        self.watching: tuple[str, ...] = ()
        self._actions = actions
        self._waiting: dict[str, list[str]] = {}
        #: What was refused, before and in the run: some fields go only together, so it is asked again with the next change.
        self._wished: dict[str, Any] = {}
        self._wished_live: dict[str, Any] = {}
        self._revealed: tuple[Any, ...] = ()
        self._compared: tuple[Any, ...] = (None,) * 4
        prediction, _ = state.predict()
        self.shown = Shown(self.exp, _typical(prediction), prediction)
        self._primary = list(dict.fromkeys(primary)) or self._first()
        knobs = self.exp.spec.knobs()
        self._summary_fields = [*self._primary, *[n for n in knobs if n not in self._primary]]
        self._in_sight = [n for n in dict.fromkeys(("nodes", *self._primary)) if n in knobs and knobs[n].live]
        axis = self.shown.axes.get(self.state.question)
        self.unit = axis.unit if axis else quantity(self.state.question).unit

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

    # --- what a renderer says -----------------------------------------------------------------------------------
    def put(self, part: str, text: str) -> None:
        """Change the HTML of a part: header, failure, table, watched, detail, meters, ranks, reveal, summary, log, guess_say."""
        raise NotImplementedError

    def show(self, part: str, yes: bool) -> None:
        """Show or hide failure, asking, told, again or resume."""
        raise NotImplementedError

    def button(self, name: str, *, locked: bool, text: str = "", tip: str = "") -> None:
        """Lock a button or give it back; change its text or tip where one is given."""
        raise NotImplementedError

    def draw_actions(self, look: Look, *, locked: bool) -> None:
        """Show what became of the experiment's own verbs, and whether they may be asked now."""
        raise NotImplementedError

    def guess_text(self) -> str:
        """Return what the learner typed."""
        raise NotImplementedError

    # --- what a person does -------------------------------------------------------------------------------------
    def act(self, action: str) -> None:
        """Carry out a button; whatever goes wrong is said on the screen."""
        self.problem = ""
        self.put("guess_say", "")
        try:
            self._actions[action]()
        except LabError as error:
            if action == "commit":
                text = told(str(error)).removeprefix(f"{quantity(self.state.question).label}: ")
                self.put("guess_say", f'<span class="aiinfra-say aiinfra-say-bad" role="alert">{escape(text)}</span>')
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
        axis, text = self.shown.axes.get(q.name), self.guess_text().strip().replace(",", ".")
        try:
            return float(text) / (axis.factor if axis else 1.0)
        except ValueError:
            return float(knob.parse(text))

    def _set_up(self, field: Control, value: Any) -> None:
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

    def _ask(self, field: Control, value: Any) -> None:
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
            self.live[each].say(tr("asked ..."), "wait")

    # --- drawing ------------------------------------------------------------------------------------------------
    def draw(self, look: Look) -> None:
        """Show a look; only what differs is sent to the browser."""
        with self.lock:
            self.put("header", header.header_html(self.exp, look, self.problem, self._in_sight))
            self.put("failure", header.failure_html(look))
            self.show("failure", bool(look.traceback))
            self._draw_predict(look)
            self._draw_run(look)
            shown = (look.segments, look.comparisons, look.guess, self.watching)
            if any(a is not b for a, b in zip(shown, self._compared, strict=True)):  # new ones are made twice a second
                self._compared = shown
                self.put("table", comparison_html(self.exp, look.comparisons, look.guess))
                self.put("detail", detail_html(self.exp, look.comparisons))
                self.put("watched", watched_html(self.exp, look.comparisons, self.watching))
                self.put("meters", glance_html(self.exp, look))

    def _draw_predict(self, look: Look) -> None:
        open_ = look.phase == "setup" or (look.phase == "ended" and look.guess is None and not look.run)
        self.show("asking", open_)
        self.show("told", not open_)
        if not open_ and self._revealed != (look.guess, self.state.spec):
            self._revealed = (look.guess, self.state.spec)
            prediction, refused = self.state.predict()
            self.put("reveal", header.reveal_html(self.exp, look.guess, prediction, refused))
            self.put("summary", spec_html(self.state, self._summary_fields, len(self._primary)))
        self.show("again", not look.going)

    def _draw_run(self, look: Look) -> None:
        going = look.going
        enabled = going and look.status is not None and look.status.state not in {"new", "starting"}
        ready = look.phase == "committed"
        self.button(
            "run",
            locked=not ready,
            tip=tr("Start the run on real MPI ranks") if ready else tr("Commit your prediction first"),
        )
        self.button("pause", locked=not enabled, text=tr("Resume") if look.paused else tr("Pause"))
        self.button("checkpoint", locked=not enabled)
        self.button("stop", locked=not going)
        self.show("resume", look.can_resume and not going)
        if not enabled:
            self._wished_live.clear()
        for name, field in self.live.items():
            field.lock(not enabled)
            self._answer(name, field, look)
        self.draw_actions(look, locked=not enabled)
        self.put("ranks", ranks_html(self.exp, look))
        self.put("log", noticed_html(self.exp.tick, look) + log_html(self.exp.tick, look))

    def _answer(self, name: str, field: Control, look: Look) -> None:
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


def spec_html(state: LabState, names: list[str], always: int) -> str:
    """Return the setup in one line: the first `always` of `names`, and what differs from its default."""
    knobs = state.experiment.spec.knobs()
    said = [n for i, n in enumerate(names) if i < always or getattr(state.spec, n) != knobs[n].default]
    values = {n: getattr(state.spec, n) for n in said}
    words = {
        n: tr("on" if v else "off") if isinstance(v, bool) else amount(knobs[n].unit, v) for n, v in values.items()
    }
    items = "".join(
        f"<span title='{escape(knobs[n].help)}'>{escape(knobs[n].label)} <b>{escape(words[n])}</b></span>" for n in said
    )
    return f'<div class="aiinfra-spec">{items}</div>'


def log_html(tick: str, look: Look, most: int = 4) -> str:
    """Return the last few requests and their answers."""
    if not look.asked:
        return ""
    items = "".join(f"<li>{escape(a.outcome(tick))}</li>" for a in list(look.asked)[: -most - 1 : -1])
    return f'<div class="aiinfra-asked"><b>{escape(tr("Asked"))}</b><ul role="log">{items}</ul></div>'
