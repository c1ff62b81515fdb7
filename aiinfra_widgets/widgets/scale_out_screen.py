"""The scale-out lab on one screen: predict, turn the knobs, the published record, the search. Layout and drawing only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as ipw
import numpy as np

from ..errors import LabError
from ..spec import Knob
from ..texts import told, tr
from . import cards
from .controls import Field, blame, grouped, stop_text
from .figures import Columns
from .live import Live
from .scale_out_fields import FIRST, MY_RUN, ScaleOutFields
from .scale_out_figures import CHARTS, CHOSEN, columns, spaced
from .scale_out_search import Found, choice_html, found_html
from .scale_out_state import ScaleOutState
from .scale_out_table import assumed_html, counts_html, notes_html, record_html, reveal_html
from .theme import STATIC, style_sheet

#: Fields that a measured run has no use for.
ONLY_MODELS = (
    "tp_size",
    "pp_size",
    "cp_size",
    "micro_batch_size",
    "num_microbatches",
    "interleave",
    "zero_stage",
    "recompute",
    "seq_len",
    "global_batch",
)
STOPS: Mapping[str, Sequence[float]] = {
    "accelerators": (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 100_000, 131_072),
    "tokens": (*(m * 10.0**d for d in range(9, 14) for m in (1, 1.5, 2, 3, 5, 7)), 1e14),
}


class ScaleLive(Live):
    """Live figures with the signs that only this lab draws."""

    _css = style_sheet() + (STATIC / "scale_out.css").read_text(encoding="utf-8")


class SmoothField(Field):
    """A field whose slider answers while it is dragged, with stops of its own where the usual ones do not suit."""

    def _make(self, value: Any) -> ipw.Widget:
        stops = STOPS.get(self.knob.name)
        if stops is None:
            made = super()._make(value)
        else:
            all_stops = sorted({*stops, value})
            made = ipw.SelectionSlider(options=[(self._stop(s), s) for s in all_stops], value=value)
        if not isinstance(made, ipw.Text):
            made.continuous_update = True
        return made

    def _stop(self, value: float) -> str:
        if self.knob.name == "accelerators":
            return spaced(value)
        return f"{value / 1e12:.3g} T" if self.knob.name == "tokens" else stop_text(self.knob, value)


class Screen:
    """Widgets of one lab, and how its state is drawn on them.

    Args:
        state: What is shown and changed.
        actions: By button: commit, again, search.
    """

    def __init__(self, state: ScaleOutState, actions: dict[str, Callable[[], None]]) -> None:
        self.state, self._actions = state, actions
        self.drawn = 0
        self._found: Found | None = None
        self._sent: dict[tuple[str, str], Columns] = {}
        made = {n: CHARTS[n]({}) for n in CHARTS}
        self.charts = ScaleLive([made[n] for n in ("parts", "time", "goodput")], ["aiinfra-live"])
        self.record_charts = ScaleLive([made["record"]], ["aiinfra-single"])
        knobs = ScaleOutFields.knobs()
        self.fields = {n: SmoothField(k, getattr(state.fields, n), self._moved, marked=False) for n, k in knobs.items()}
        self._build()
        self.draw()

    # --- building -----------------------------------------------------------------------------------------------
    def _build(self) -> None:
        self.header, self.problem, self.table, self.notes = (
            cards.html(n) for n in ("head", "problem-box", "wide", "notes")
        )
        self.reveal, self.assumed, self.record, self.guess_say = (
            cards.html(n) for n in ("reveal", "assumptions", "record-table", "guess-say")
        )
        self.search_say, self.search_box = cards.html("search-say"), cards.box("search", [])
        self.drawings = [ipw.VBox([self.charts]), self.table, ipw.VBox([self.record_charts])]
        self.later = [self._record_card(), self._search_card()]
        self.root = ipw.VBox([self.header, self._predict_card(), self._knobs_card(), *self.later])
        self.root.add_class("aiinfra-lab")
        self.root.add_class("aiinfra-scale-out")

    def _predict_card(self) -> ipw.Widget:
        setup = cards.box("setup", [*(self.fields[n].widget for n in FIRST), self.problem])
        self.question = cards.html("question-box")
        self.guess = ipw.Text(placeholder=tr("your number, in {unit}", unit="%"), continuous_update=True)
        self.guess.add_class("aiinfra-guess")
        self.guess.tooltip = tr("What you expect, in percent of a step")
        commit = self._button(
            tr("Commit"), "commit", tr("Write your guess into the ledger; then the model shows its own"), "primary"
        )
        answer = cards.box("answer", [self.question, cards.box("commit", [self.guess, commit]), self.guess_say])
        again = self._button(tr("Start over"), "again", tr("Guess again for another setup"))
        self.asking, self.told = cards.box("predict", [setup, answer]), cards.box("told", [self.reveal, again])
        return cards.card("1", tr("Predict"), [self.asking, self.told])

    def _knobs_card(self) -> ipw.Widget:
        sliders = cards.box("knobs", [self.fields[n].widget for n in FIRST])
        more = grouped(tr("More"), {n: f for n, f in self.fields.items() if n not in FIRST})
        side = cards.box("side", [sliders, more, self.notes])
        body = cards.box("body", [side, ipw.VBox([self.problem, self.drawings[0]])])
        self.hidden = ipw.HTML(
            f'<p class="aiinfra-empty">{escape(tr("The figures appear once you have committed a guess."))}</p>'
        )
        self.shown = ipw.VBox([body, self.table, self.assumed])
        return cards.card("2", tr("Turn the knobs"), [self.hidden, self.shown])

    def _record_card(self) -> ipw.Widget:
        return cards.card("3", tr("The published record"), [cards.box("record", [self.drawings[-1], self.record])])

    def _search_card(self) -> ipw.Widget:
        self.search_button = self._button(
            tr("Search plans"), "search", tr("Try every plan on this number of accelerators"), "primary"
        )
        return cards.card(
            "4",
            tr("Search for a better plan"),
            [cards.box("toolbar", [self.search_button, self.search_say]), self.search_box],
        )

    def _button(self, text: str, action: str, tip: str, style: str = "") -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tip, button_style=style)
        button.add_class("aiinfra-button")
        button.on_click(lambda _: self.act(action))
        return button

    # --- what a person does -------------------------------------------------------------------------------------
    def act(self, action: str) -> None:
        """Carry out a button; whatever goes wrong is said beside it."""
        where = self.search_say if action == "search" else self.guess_say
        cards.put(where, "")
        try:
            self._actions[action]()
        except LabError as error:
            text = told(str(error).removeprefix("Communication: "))
            cards.put(where, f'<span class="aiinfra-say aiinfra-say-bad" role="alert">{escape(text)}</span>')
        self.draw()

    def read_guess(self) -> float:
        """Return the learner's number as a share.

        Raises:
            SpecError: It cannot be read.
        """
        text = self.guess.value.strip().removesuffix("%").strip().replace(",", ".")
        return float(_GUESS.parse(text)) / 100

    def show_fields(self) -> None:
        """Make the controls show the fields of the state, which something else has changed."""
        for name, field in self.fields.items():
            field.set(getattr(self.state.fields, name))

    def _moved(self, field: Field, value: Any) -> None:
        try:
            self.state.change({field.knob.name: value})
        except LabError as error:
            rest = blame(self.fields, str(error))
            if rest:
                field.say(rest, "bad")
        self.draw()

    # --- drawing ------------------------------------------------------------------------------------------------
    def draw(self) -> None:
        """Show the state; only what differs is sent to the browser, and all figures in one message each."""
        state, open_ = self.state, self.state.guess is None
        self.drawn += 1
        cards.put(self.header, header_html())
        cards.put(self.question, question_html(state.fields))
        cards.show(self.asking, open_)
        cards.show(self.told, not open_)
        cards.show(self.hidden, open_)
        for box in (self.shown, *self.later):
            cards.show(box, not open_)
        for name in ONLY_MODELS:
            self.fields[name].lock(state.fields.model == MY_RUN)
        stale = escape(tr(". The figures show the last plan that can run.")) if state.stale else ""
        problem = f'<div class="aiinfra-problem" role="alert">{escape(told(state.problem).rstrip("."))}{stale}</div>'
        cards.put(self.problem, problem if state.problem else "")
        for box in self.drawings:
            _marked(box, "aiinfra-stale", state.stale)
        if state.picture is None or open_:
            return
        picture = state.picture
        self._feed(columns(picture))
        cards.put(self.table, counts_html(picture))
        cards.put(self.notes, notes_html(picture))
        cards.put(self.reveal, reveal_html(state.revealed or picture, state.guess))
        cards.put(self.assumed, assumed_html(picture.assumed))
        cards.put(self.record, record_html(picture.record, state.no_record))

    def draw_search(self, found: Found | None, use: Callable[[int], None]) -> None:
        """Show what a search found, with a button to take each plan."""
        if found is None or found is self._found:
            return
        self._found = found
        cards.put(self.search_say, "")
        rows: list[ipw.Widget] = [ipw.HTML(found_html(found))]
        for i, choice in enumerate(found.choices):
            button = ipw.Button(description=tr("Use"), tooltip=tr("Set the knobs to this plan"))
            button.add_class("aiinfra-button")
            button.on_click(lambda _, i=i: use(i))
            row = ipw.HBox([button, ipw.HTML(choice_html(choice))])
            row.add_class("aiinfra-choice")
            rows.append(row)
        self.search_box.children = rows

    def _feed(self, found: Mapping[str, Any]) -> None:
        for live in (self.charts, self.record_charts):
            with live.batch():
                for chart in (c["name"] for c in live.charts):
                    sources = dict(found[chart])
                    span = sources.pop("span", None)
                    for name, data in sources.items():
                        if not _same(self._sent.get((chart, name)), data):
                            self._sent[chart, name] = data
                            live.put(chart, name, data, seen=True)
                    if span:
                        live.span(chart, span["start"], span["end"])
                    live.say(chart, says(chart, self.state))


def question_html(f: ScaleOutFields) -> str:
    """Return what the learner is asked."""
    plan = tr(
        "{ranks} tensor-parallel ranks, {stages} pipeline stages, {batch} sequences a step.",
        ranks=f.tp_size, stages=f.pp_size, batch=spaced(f.global_batch),
    )  # fmt: skip
    asked = tr(
        "How much of a step on <b>{count} accelerators</b> is communication that nothing hides?",
        count=spaced(f.accelerators),
    )
    answer = ("" if f.model == MY_RUN else f"{plan} ") + tr("Answer in percent of the step.")
    return f"<p class='aiinfra-question'>{asked} <small>{escape(answer)}</small></p>"


def says(chart: str, state: ScaleOutState) -> str:
    """Say what a chart shows, for somebody who does not see it."""
    p = state.picture
    if p is None:
        return tr("nothing yet")
    at = {k: float(v) for k, v in p.bars.at(CHOSEN).items()}
    n = spaced(p.fields.accelerators)
    if at["step_time_s"] != at["step_time_s"]:
        return tr("{count} accelerators are too few for one replica", count=n)
    return {
        "parts": tr(
            "Parts of a step: on {count} accelerators {share:.0%} is communication",
            count=n,
            share=at["exposed_comm_frac"],
        ),
        "time": tr("Time to train: {days:.3g} days on {count} accelerators", days=at["train_time_s"] / 86400, count=n),
        "goodput": tr("Goodput: {share:.0%} on {count} accelerators", share=at["training_goodput_frac"], count=n),
        "record": tr("Utilisation beside {count} published runs", count=len(p.record)),
    }[chart]


_GUESS = Knob("Communication", "Communication", "float", 0.0, "", "", 0.0, 100.0, (), False, False, "", None)


def header_html() -> str:
    """Return what stands above the cards."""
    says = escape(tr("One training job, from 8 to 100 000 accelerators"))
    return (
        f'<div class="aiinfra-title"><h2>{escape(tr("Scaling out"))}</h2><span class="aiinfra-says">{says}</span></div>'
    )


def _same(before: Columns | None, now: Columns) -> bool:
    """Whether a source has what was sent already; a slider leaves most of them as they are."""
    return before is not None and all(np.array_equal(before[c], now[c]) for c in now)


def _marked(widget: ipw.Widget, name: str, yes: bool) -> None:
    if yes and name not in widget._dom_classes:
        widget.add_class(name)
    elif not yes and name in widget._dom_classes:
        widget.remove_class(name)
