"""`Variants(lab, ["nodes=1", "nodes=2 tp_size=2"])`: several setups, one after the other, on the lab's own ranks.

A change of a running lab goes on from where the training is; here each setup starts anew, so that what it computes and what
it costs stand side by side. In a notebook a button starts it and a thread works, so that the page stays alive. Headless
`measure` does the same, and what is displayed is a table and an offline figure.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import ipywidgets as ipw
import numpy as np

from ..comparison import Comparison, compare
from ..errors import ControlError, LabError, SpecError
from ..experiment import Spec
from ..launch.schedule import read_words
from ..quantities import quantity
from ..runs.status import status
from ..texts import told, tr
from . import cards
from .lab import Lab
from .live import Live
from .notebook import show, show_figure, show_html
from .variants_view import CHART, curves_chart, sources, table_html
from .words import said

#: Seconds between two looks at a run.
LOOK_S = 0.05
#: More lines cannot be told apart.
MOST = 7


@dataclass
class Variant:
    """One setup and what became of it.

    Attributes:
        text: As typed; `spec` is None where it is not allowed, with the reason in `problem`.
        name: The same in words.
        comparison: Predicted and measured, once it was measured.
        at, curve: Ticks and the quantity that is drawn over them.
    """

    text: str
    name: str
    spec: Spec | None
    problem: str = ""
    comparison: Comparison | None = None
    at: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0))
    curve: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0))
    run: str = ""


class Variants:
    """Setups of one lab, measured one after the other from the same beginning.

    Args:
        lab: Each setup starts from its setup, and runs on its ranks.
        setups: Fields as typed, "nodes=2 tp_size=2"; "" is the lab's own setup. The first one is what the others are held against.
        quantities: Measured quantities that get a column each.
        curve: The quantity that is drawn over ticks, such as "loss".
        values: Fields for all of them, such as steps=60.

    Raises:
        SpecError: No setup or too many, a field that does not exist, or a value that no setup may have.
    """

    def __init__(
        self, lab: Lab, setups: Sequence[str], *, quantities: Sequence[str] = (), curve: str = "loss", **values: Any
    ) -> None:
        if not 1 <= len(setups) <= MOST:
            raise SpecError(f"setups: got {len(setups)}; allowed: 1 to {MOST} texts such as 'nodes=2 tp_size=2'")
        self.lab, self.headless = lab, lab.headless
        self.quantities = tuple(quantity(n).name for n in quantities)
        self.curve = quantity(curve).name
        base = lab.state.spec.changed(values, live_only=False) if values else lab.state.spec
        self.variants = [self._variant(base, text) for text in setups]
        self._screen: VariantsScreen | None = None
        self._lock = threading.Lock()

    def _variant(self, base: Spec, text: str) -> Variant:
        words = read_words(self.lab.state.experiment, shlex.split(text), repr(text))
        if words.verb or words.at_tick:
            raise SpecError(f"setup {text!r}: a setup has fields only; write it as 'nodes=2 tp_size=2'")
        if not words.fields:
            return Variant(text, tr("As set above"), base)
        try:
            spec = base.changed(words.fields, live_only=False)
        except SpecError as error:
            return Variant(text, text, None, told(str(error)))
        knobs = spec.knobs()
        return Variant(text, ", ".join(said(knobs[n], getattr(spec, n)) for n in words.fields), spec)

    def measure(self, working: Callable[[str], None] = lambda text: None) -> None:
        """Run every setup that was not run yet, and return when that is done.

        Args:
            working: Told each setup before it runs.

        Raises:
            ControlError: The lab's own run still goes on: both would share the cores.
            AdmissionError, LaunchError, StorageError: It could not be started.
        """
        if self.lab.state.phase == "running":
            raise ControlError("the run of the lab goes on; stop it first, for both would share the cores")
        with self._lock:
            for variant in self.variants:
                if variant.spec is not None and variant.comparison is None and not variant.problem:
                    working(variant.name)
                    self._run(variant, variant.spec)

    def _run(self, variant: Variant, spec: Spec) -> None:
        state = self.lab.state
        room = max(v.spec.ranks for v in self.variants if v.spec is not None)
        reader = state.session.launch(state.experiment.name, spec, room=room, note=f"variant {variant.text}".strip())
        variant.run = str(reader.run.path)
        while True:
            reader.poll()
            now = status(reader)
            if now.final:
                break
            time.sleep(LOOK_S)
        reader.poll()  # what was written between the last look and the end
        segments, ticks = reader.segments(), reader.ticks
        if now.state != "done" or not segments:
            variant.problem = told(now.message)
            return
        variant.comparison = compare(state.experiment, segments[-1])
        if self.curve in ticks:
            variant.at, variant.curve = ticks["tick"].to_numpy(float), ticks[self.curve].to_numpy(float)

    def results(self) -> list[dict[str, Any]]:
        """Return one row for each setup, plain JSON types: what it costs, where its curve ends, how far it is off the first one."""
        rows = []
        for v in self.variants:
            found = v.comparison.to_json()["quantities"] if v.comparison else {}
            first = self.variants[0]
            rows.append(
                {
                    "setup": v.text, "spec": v.spec.model_dump() if v.spec else None, "run": v.run or None,
                    "problem": v.problem or None, "quantities": found, self.curve: end_of(v.curve),
                    "difference_to_first_frac": apart(v.curve, first.curve),
                }
            )  # fmt: skip
        return rows

    def figure(self) -> Any:
        """Return the curves as they are now: a Bokeh figure that does not move."""
        from .figures import still

        return still(curves_chart(self.curve, self._names(), self.lab.state.experiment.tick, self._sources()))

    def table_html(self) -> str:
        """Return what each setup costs, as a table."""
        return table_html(self.lab.state.experiment, self.variants, self.results(), self.quantities, self.curve)

    def _names(self) -> list[str]:
        return [v.name for v in self.variants]

    def _sources(self) -> dict[str, Any]:
        return sources(self.curve, [(v.at, v.curve) for v in self.variants])

    def _ipython_display_(self) -> None:
        if not self.headless:
            self._screen = self._screen or VariantsScreen(self)
            show(self._screen.root)
            return
        show_html(self.table_html())
        show_figure(
            self.figure(),
            tr("{quantity} of {setups}", quantity=quantity(self.curve).label, setups=", ".join(self._names())),
        )

    def _repr_html_(self) -> str | None:
        return None

    def __repr__(self) -> str:
        done = sum(v.comparison is not None for v in self.variants)
        return f"Variants: {done} of {len(self.variants)} measured"


class VariantsScreen:
    """A button, what goes on, the table and the curves."""

    def __init__(self, variants: Variants) -> None:
        self.of = variants
        names, tick = variants._names(), variants.lab.state.experiment.tick
        self.button = cards.button(
            tr("Measure these"), tr("Run each setup, one after the other, from the beginning"), self._press, "primary"
        )
        self.say, self.table = cards.html("says"), cards.html("table-box")
        self.live = Live([curves_chart(variants.curve, names, tick, {})], ["aiinfra-one"])
        bar = cards.box("toolbar", [self.button, self.say])
        self.root = ipw.VBox([bar, self.table, self.live])
        self.root.add_class("aiinfra-lab")
        self.root.add_class("aiinfra-alone")
        self.draw()

    def _press(self) -> None:
        self.button.disabled = True
        threading.Thread(target=self._work, daemon=True, name="aiinfra-variants").start()

    def _work(self) -> None:
        try:
            self.of.measure(self._working)
            cards.put(self.say, "")
        except LabError as error:
            cards.put(
                self.say, f'<span class="aiinfra-say aiinfra-say-bad" role="alert">{escape(told(str(error)))}</span>'
            )
        finally:
            self.draw()

    def _working(self, text: str) -> None:
        cards.put(self.say, f'<span role="status">{escape(tr("running {setup}", setup=text))} \u2026</span>')
        self.draw()

    def draw(self) -> None:
        """Show what there is."""
        of = self.of
        cards.put(self.table, of.table_html())
        self.button.disabled = all(v.comparison or v.problem for v in of.variants)
        with self.live.batch():
            for name, columns in of._sources().items():
                if name == "span":
                    self.live.span(CHART, columns["start"], columns["end"])
                else:
                    self.live.put(CHART, name, columns, seen=True if len(columns["tick"]) else None)


def end_of(curve: np.ndarray[Any, Any]) -> float | None:
    """Return the mean of the last tenth of a curve, None where there is none."""
    known = curve[np.isfinite(curve)]
    return float(known[-max(1, len(known) // 10) :].mean()) if known.size else None


def apart(curve: np.ndarray[Any, Any], first: np.ndarray[Any, Any]) -> float | None:
    """Return the largest difference between two curves at one tick, relative to the first; None where there is nothing to compare."""
    both = min(len(curve), len(first))
    if not both:
        return None
    a, b = curve[:both], first[:both]
    return float(np.nanmax(np.abs(a - b) / np.maximum(np.abs(b), 1e-300)))
