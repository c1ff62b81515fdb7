"""`ClaimsLab()`: formulas of the articles, one after the other: believe or doubt, change the inputs, measure, compare.

In a notebook the cell shows the screen, and a thread measures, so that the page stays alive. Headless there is no widget and no thread:
`commit`, `change` and `measure` do the same, and what is displayed are a table and offline figures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as ipw

from ..claims.claim import Claim, Input, find
from ..claims.trials import Trials
from ..course import ledger
from ..errors import LabError
from ..texts import told, tr
from . import cards
from .claims_chart import claim_chart, columns, in_words
from .claims_table import answer_html, belief_words, measured_html, statement_html, table_html, verdict_html, why_html
from .figures import still
from .live import Live
from .notebook import headless, show, show_figure, show_html

LAB = "claims"
#: What is written into the ledger: a claim that holds is 1, one that does not 0, one that holds in part a half.
WORTH = {"holds here": 1.0, "close": 1.0, "holds in part": 0.5, "refuted": 0.0}


class ClaimsLab:
    """The claims on one screen.

    Args:
        seconds: About how long all measurements together may take.

    Raises:
        SpecError: Too short to measure anything.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.headless = headless()
        self.trials = Trials(seconds)
        self._entries: dict[str, str] = {}
        self._screen: ClaimsScreen | None = None

    def commit(self, name: str, holds: bool) -> None:
        """Write your own verdict into the ledger, before the lab shows its own: does the claim hold on this machine?

        Raises:
            UnknownNameError: No such claim; near matches are named.
            StorageError: The ledger cannot be written.
        """
        claim = find(self.trials.claims, name)
        if name not in self._entries:
            self._entries[name] = ledger.commit(LAB, claim.id, float(holds), dict(self.trials.inputs(name)))
            self.trials.believe(name, holds)
        self._redraw()

    def change(self, name: str, **inputs: str) -> None:
        """Change inputs of a claim: `lab.change("S1-xfer", size_bytes="4 GB")`; formula and right model are worked out anew.

        Raises:
            UnknownNameError: No such claim.
            SpecError: No such input, or a value that is not allowed.
        """
        self.trials.type(name, **inputs)
        self._redraw()

    def measure(self, *names: str) -> None:
        """Measure these claims on this machine, all of them by default, and return when it is done.

        Raises:
            UnknownNameError: No such claim.
        """
        for name in names:
            find(self.trials.claims, name)
        self.trials.measure_all(names)
        self._settle()
        self._redraw()

    def results(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return self.trials.results()

    def figure(self, name: str) -> Any:
        """Return the figure of a claim as it is now: a Bokeh figure that does not move."""
        claim = find(self.trials.claims, name)
        data, x, y = columns(claim, self.trials.drawn_at(name), self.trials.evidence(name))
        return still(claim_chart(claim, data, x, y))

    def show(self, what: str = "table") -> None:
        """Display "table", or the figure of a claim, in a cell of its own; in a notebook the table follows what you do."""
        if what != "table":
            show_figure(self.figure(what), in_words(find(self.trials.claims, what), self.trials.evidence(what)))
        elif self.headless:
            show_html(table_html(self.trials, frozenset(self.trials.claims)))
        else:
            show(self._the_screen().table_alone)

    def _ipython_display_(self) -> None:
        if not self.headless:
            show(self._the_screen().root)
            return
        for claim in self.trials.claims.values():
            title = f"<h4>{escape(claim.id)}</h4>"
            show_html(title + statement_html(claim) + why_html(self.trials, claim) + measured_html(self.trials, claim))
            self.show(claim.id)

    def _repr_html_(self) -> str | None:
        return None

    def __repr__(self) -> str:
        return f"ClaimsLab: {self.results()['message']}"

    def _settle(self) -> None:
        """Put the outcome beside the learner's own verdict, once there is one."""
        for name, entry in list(self._entries.items()):
            found, verdict = self.trials.evidence(name), self.trials.verdict(name)
            if found is not None and entry:
                ledger.settle(entry, "", WORTH.get(verdict.word))
                self._entries[name] = ""  # settled

    def _the_screen(self) -> ClaimsScreen:
        if self._screen is None:
            self._screen = ClaimsScreen(self)
        return self._screen

    def _redraw(self) -> None:
        if self._screen is not None:
            self._screen.draw()

    def measure_beside(self, names: Sequence[str]) -> None:
        """Measure in a thread; what goes wrong is said on the screen."""

        def work() -> None:
            screen = self._the_screen()
            try:
                self.trials.measure_all(names, screen.measuring)
                self._settle()
            except LabError as error:
                screen.problem = str(error)
            finally:
                screen.measuring("")

        threading.Thread(target=work, daemon=True, name="aiinfra-claims").start()


class ClaimsScreen:
    """Widgets of the lab; what they show is the lab's `trials`."""

    def __init__(self, lab: ClaimsLab) -> None:
        self.lab, self.trials = lab, lab.trials
        self.problem, self._busy = "", ""
        self._lock = threading.RLock()
        self._live: FigureOf | None = None
        self.header, self.statement, self.say, self.why = (cards.html(n) for n in ("head", "", "guess-say", "why-box"))
        self.answer, self.told, self.how = cards.html("reveal"), cards.html("reveal"), cards.html("how")
        self.table, self.table_again = cards.html("table-box"), cards.html("table-box")
        self.choice = ipw.ToggleButtons(options=list(self.trials.claims), style={"button_width": "80px"})
        self.choice.observe(lambda _: self._chosen(), "value")
        self.fields, self.figure = ipw.VBox(), ipw.VBox()
        self.buttons = {
            "holds": cards.button(
                tr("It holds"),
                tr("Write into the ledger that this claim holds on this machine"),
                lambda: self._commit(True),
                "primary",
            ),
            "not": cards.button(
                tr("It does not"), tr("Write into the ledger that it does not"), lambda: self._commit(False), "primary"
            ),
            "measure": cards.button(
                tr("Measure"),
                tr("Measure this claim on this machine"),
                lambda: self._measure([self.claim.id]),
                "primary",
            ),
            "all": cards.button(
                tr("Measure all I have judged"),
                tr("One after the other"),
                lambda: self._measure(list(self.trials.beliefs)),
            ),
        }
        self._build()
        self._chosen()

    @property
    def claim(self) -> Claim:
        """The one that is shown."""
        return self.trials.claims[str(self.choice.value)]

    def _build(self) -> None:
        ask = ipw.HTML(
            f"<p class='aiinfra-question'>{tr('Does it hold on <b>your</b> machine?')} "
            f"<small>{escape(tr('Your answer goes into the ledger.'))}</small></p>"
        )
        row = cards.box("commit", [self.buttons["holds"], self.buttons["not"]])
        self.asking = cards.box("answer-row", [ask, row])
        right = cards.box("answer", [self.asking, self.told, self.answer, self.say])
        self.ours = ipw.HTML(
            f"<p class='aiinfra-note'>{escape(tr('* The article gives no value: assumed by us.'))}</p>"
        )
        left = cards.box("setup", [self.statement, self.fields])
        predict = cards.card("1", tr("Read, and commit"), [self.choice, cards.box("predict", [left, right])])
        side = cards.box("side", [self.why])
        bar = cards.box("toolbar", [self.buttons["measure"], self.buttons["all"]])
        measure = cards.card(
            "2", tr("Measure, and see why"), [bar, cards.box("body", [side, ipw.VBox([self.figure, self.how])])]
        )
        # A widget without figures, for the style sheet comes with it: there is none of a claim before the first commitment.
        style = Live([], ["aiinfra-hidden"])
        self.root = ipw.VBox([style, self.header, predict, measure, cards.card("3", tr("Compare"), [self.table])])
        self.root.add_class("aiinfra-lab")
        self.table_alone = ipw.VBox([Live([], ["aiinfra-hidden"]), self.table_again])
        self.table_alone.add_class("aiinfra-lab")
        self.table_alone.add_class("aiinfra-alone")

    # --- what a person does -------------------------------------------------------------------------------------
    def _chosen(self) -> None:
        self.say.value = ""
        ours = [self.ours] if any(i.ours for i in self.claim.inputs) else []
        self.fields.children = [*(self._field(i) for i in self.claim.inputs), *ours]
        self.draw()

    def _field(self, given: Input) -> ipw.Widget:
        text = self.trials.inputs(self.claim.id)[given.name]
        field = ipw.Text(
            value=text,
            description=f"{tr(given.label)} {given.symbol}{' *' if given.ours else ''}",
            continuous_update=False,
        )
        source = tr("Ours: the article does not say.") if given.ours else tr("As printed.")
        field.tooltip = f"{tr(given.label)}: {told(given.allowed)}. {source}"
        field.placeholder = tr("assumed by us") if given.ours else tr("as printed")
        field.add_class("aiinfra-control")
        name, claim = given.name, self.claim.id
        field.observe(lambda change: self._typed(claim, name, change["new"]), "value")
        return field

    def _typed(self, claim: str, name: str, text: str) -> None:
        try:
            self.lab.change(claim, **{name: text})
            self.say.value = ""
        except LabError as error:
            self.say.value = f'<span class="aiinfra-say aiinfra-say-bad" role="alert">{escape(told(str(error)))}</span>'

    def _commit(self, holds: bool) -> None:
        try:
            self.lab.commit(self.claim.id, holds)
        except LabError as error:
            self.problem = str(error)
            self.draw()

    def _measure(self, names: Sequence[str]) -> None:
        self.problem = ""
        self.measuring(names[0])
        self.lab.measure_beside(names)

    def measuring(self, name: str) -> None:
        """Say what is being measured; "" is nothing any more."""
        self._busy = name
        self.draw()

    # --- drawing ------------------------------------------------------------------------------------------------
    def draw(self) -> None:
        """Show everything as it is now; only what differs is sent to the browser."""
        with self._lock:
            claim, believed = self.claim, self.trials.beliefs.get(self.claim.id)
            known = believed is not None
            cards.put(self.header, self._header())
            cards.put(self.statement, statement_html(claim))
            cards.put(self.answer, answer_html(self.trials, claim, known))
            cards.show(self.asking, not known)
            own = tr("You: {belief}", belief=f"<b>{escape(belief_words(bool(believed)))}</b>")
            verdict = f"<p>{own} {verdict_html(self.trials.verdict(claim.id))}</p>"
            cards.put(self.told, verdict if known else "")
            later = escape(tr("Commit first; then the verdict and the figure appear here."))
            later = f"<p class='aiinfra-empty'>{later}</p>"
            cards.put(self.why, why_html(self.trials, claim) if known else later)
            cards.put(self.how, measured_html(self.trials, claim) if known else "")
            self._draw_figure(claim, known)
            b, busy = self.buttons, bool(self._busy)
            b["measure"].disabled = busy or not known or claim.measure is None
            b["all"].disabled = busy or not self.trials.beliefs
            revealed = frozenset(self.trials.beliefs)
            for table in (self.table, self.table_again):
                cards.put(table, table_html(self.trials, revealed))

    def _header(self) -> str:
        judged, count = len(self.trials.beliefs), len(self.trials.claims)
        measured = sum(self.trials.evidence(n) is not None for n in self.trials.beliefs)
        word, kind = (
            (tr("\u25d4 measuring {claim}", claim=self._busy), "busy")
            if self._busy
            else (tr("\u25cf {some} of {all} judged", some=judged, all=count), "calm")
        )
        if self._busy:
            step = tr("It takes some seconds. You can go on reading and typing meanwhile.")
        elif self.claim.id not in self.trials.beliefs:
            step = tr("Read the claim, change its inputs, and commit: does it hold?")
        elif self.claim.measure and self.trials.evidence(self.claim.id) is None:
            step = tr("Press Measure.")
        else:
            step = tr("Compare claim, right model and measurement; then choose the next claim.")
        title, says = tr("Claims put to the test"), tr("{count} measured here", count=measured)
        bad = f'<div class="aiinfra-problem" role="alert">{escape(told(self.problem))}</div>' if self.problem else ""
        return (
            f'<div class="aiinfra-title"><h2>{escape(title)}</h2><span class="aiinfra-chip aiinfra-chip-{kind}" role="status">'
            f'{escape(word)}</span><span class="aiinfra-says">{escape(says)}</span></div>'
            f'<p class="aiinfra-next"><b>{escape(tr("Next"))}</b> {escape(step)}</p>{bad}'
        )

    def _draw_figure(self, claim: Claim, known: bool) -> None:
        """Make the figure anew where the claim or its axes changed, else send its data."""
        if not known:
            self._replace(None)
            return
        found = self.trials.evidence(claim.id)
        data, x, y = columns(claim, self.trials.drawn_at(claim.id), found)
        if self._live is None or self._live.of != (claim.id, x, y):
            self._replace(FigureOf(claim, data, x, y))
        live = self._live
        assert live is not None
        with live.batch():
            for source, values in data.items():
                if source != "span":
                    live.put(claim.id, source, values, seen=True if source == "right" else None)
            live.span(claim.id, data["span"]["start"], data["span"]["end"])
            live.say(claim.id, in_words(claim, found))

    def _replace(self, live: FigureOf | None) -> None:
        old, self._live = self._live, live
        if old is not live:
            self.figure.children = [live] if live is not None else []
            if old is not None:
                old.close()


class FigureOf(Live):
    """The live figure of one claim, on certain axes."""

    def __init__(self, claim: Claim, data: Any, x: Any, y: Any) -> None:
        self.of = (claim.id, x, y)
        super().__init__([claim_chart(claim, {"span": data["span"]}, x, y)], ["aiinfra-live"])
