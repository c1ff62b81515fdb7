"""The lab's figures on a page of its own: drawn by `widgets.figures`, fed by `widgets.feed`, coloured for its paper."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from bokeh import events
from bokeh import models as _models
from bokeh.core.property.vectorization import Value

from ..widgets.feed import Still
from ..widgets.figures import Chart, Columns
from ..widgets.theme import INK_TAG, PAPER_TAG
from . import parts
from .parts import pn

#: Bokeh's type hints lack several of its models.
bk: Any = _models
#: Texts and frames of a figure are so much larger than in a notebook, for people at the back of a room.
ZOOM = 1.35
TEXT_SIZES = ("axis_label_text_font_size", "major_label_text_font_size", "text_font_size")


@dataclass(frozen=True, slots=True)
class Paper:
    """Colours of what is not data."""

    ink: str
    soft: str
    rule: str
    paper: str


#: As in static/app.css.
PAPERS = {
    "light": Paper("#1f1f1f", "#4a4a4a", "#d4d4d4", "#ffffff"),
    "dark": Paper("#f0f0f0", "#c4c4c4", "#4a4a4a", "#16181c"),
}


def skin(figure: Any, paper: Paper, zoom: float = ZOOM) -> list[Any]:
    """Give a figure the colours of a paper and larger type; colours of data stay. Return the models it is made of."""
    models = list(figure.references())
    figure.frame_height = round(figure.frame_height * zoom)
    for model in models:
        if isinstance(model, bk.Axis):
            model.update(
                axis_label_text_color=paper.soft, major_label_text_color=paper.soft, axis_line_color=paper.rule,
                major_tick_line_color=paper.rule, axis_line_alpha=1.0, major_tick_line_alpha=1.0,
            )  # fmt: skip
        elif isinstance(model, bk.Grid):
            if model.grid_line_color is not None:
                model.update(grid_line_color=paper.rule, grid_line_alpha=0.7)
        elif isinstance(model, bk.LabelSet):
            model.update(text_color=paper.ink)
            if model.y_units == "screen" and isinstance(
                model.y, int | float | Value
            ):  # from the lower edge of the frame
                at = model.y.value if isinstance(model.y, Value) else model.y
                model.y = at * zoom
        for name in TEXT_SIZES if isinstance(model, bk.Axis | bk.LabelSet) else ():
            size = getattr(model, name, None)
            if isinstance(size, str) and size.endswith("px"):
                setattr(model, name, f"{round(float(size[:-2]) * zoom)}px")
        for tag, colour in ((INK_TAG, paper.soft), (PAPER_TAG, paper.paper)):
            if tag in model.tags and "line_color" in model.properties():
                model.line_color = colour
    return models


class Card:
    """One chart of one page: its caption, what stands there while it is empty, its figure."""

    def __init__(self, chart: Chart, seen: bool, paper: Paper) -> None:
        self.chart = chart
        self._sent: tuple[float, float] | None = None
        models = skin(chart.figure, paper)
        self.sources = {m.name: m for m in models if isinstance(m, bk.ColumnDataSource) and m.name}
        self._range = next((m for m in models if isinstance(m, bk.Range1d) and m.name == "follow"), None)
        self._follow = True
        chart.figure.on_event(events.Reset, lambda _: self._reset())
        self.head = parts.html("", "chart-top")
        self.empty = parts.html(f'<p class="chart-empty">{escape(chart.empty)}</p>', "chart-over")
        figure = pn.pane.Bokeh(chart.figure, **parts.WIDE)
        self.figure = parts.column("figure", figure)
        self.root = pn.Column(
            self.head, self.figure, self.empty, sizing_mode="stretch_width", margin=0,
            css_classes=["chart", f"chart-{chart.name}"], stylesheets=[parts.STYLE],
        )  # fmt: skip
        self.see(seen)
        self.caption()

    def see(self, seen: bool | None) -> None:
        """True shows the figure, False what to do to see one; None leaves it."""
        if seen is not None:
            parts.show(self.empty, not seen)
            classes = ["figure"] if seen else ["figure", "blank"]
            if self.figure.css_classes != classes:
                self.figure.css_classes = classes

    def caption(self) -> None:
        """Write the title, and what the colours that are drawn mean."""
        keys = "".join(
            f'<span><i class="aiinfra-key aiinfra-key-{k.sign}" style="--key:{k.colour}"></i>{escape(k.text)}</span>'
            for k in self.chart.keys
            if k.drawn
        )
        text = f'<div class="aiinfra-chart-head"><b>{escape(self.chart.title)}</b>{keys}</div>'
        parts.put(self.head, text)

    def span(self, low: float, high: float) -> None:
        """Move the y range; a reader who has zoomed keeps theirs."""
        if self._range is None:
            return
        if self._sent is not None and (self._range.start, self._range.end) != self._sent:
            self._follow = False
        self._sent = (low, high)
        if self._follow:
            self._range.update(start=low, end=high)

    def _reset(self) -> None:
        self._follow = True
        if self._range is not None and self._sent is not None:
            self._range.update(start=self._sent[0], end=self._sent[1])


class Sheet:
    """The charts of one page, and what is still to be drawn on them; every page has its own.

    Args:
        charts: Built with what is known.
        known: Where a feed keeps what it sent so far.
        paper: Colours.
    """

    def __init__(self, charts: Iterable[Chart], known: Still, paper: Paper) -> None:
        self.cards = {c.name: Card(c, c.name in known.seen, paper) for c in charts}
        self._lock = threading.Lock()
        self._data: dict[tuple[str, str], tuple[bool, list[Columns]]] = {}
        self._seen: dict[str, bool] = {}
        self._spans: dict[str, tuple[float, float]] = {}

    def put(self, chart: str, source: str, columns: Columns, seen: bool | None) -> None:
        """Replace a source at the next drawing."""
        with self._lock:
            self._data[chart, source] = (True, [columns])
            if seen is not None:
                self._seen[chart] = seen

    def append(self, chart: str, source: str, columns: Columns) -> None:
        """Add to a source at the next drawing; what a slow browser has not taken yet stays in order."""
        with self._lock:
            self._data.setdefault((chart, source), (False, []))[1].append(columns)
            self._seen[chart] = True

    def span(self, chart: str, low: float, high: float) -> None:
        """Move a y range at the next drawing."""
        with self._lock:
            self._spans[chart] = (low, high)

    def draw(self) -> None:
        """Draw what has come; called where the page may be changed."""
        with self._lock:
            data, seen, spans = self._data, self._seen, self._spans
            self._data, self._seen, self._spans = {}, {}, {}
        for (chart, source), (whole, pieces) in data.items():
            found = self.cards[chart].sources.get(source)
            if found is None:
                continue
            columns = joined(pieces)
            if whole:
                found.data = columns
            else:
                found.stream(columns)
        for chart, span in spans.items():
            self.cards[chart].span(*span)
        for chart in {c for c, _ in data}:
            self.cards[chart].see(seen.get(chart))
            self.cards[chart].caption()


def joined(pieces: list[Columns]) -> dict[str, Any]:
    """Return columns end to end."""
    if len(pieces) == 1:
        return {k: v if isinstance(v, np.ndarray) else list(v) for k, v in pieces[0].items()}
    return {k: np.concatenate([np.asarray(p[k]) for p in pieces]) for k in pieces[0]}


class Everyone:
    """A sink for one feed: keeps what it sends for pages that are opened later, and hands it to those that are open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.known = Still()
        self.sheets: list[Sheet] = []

    def put(self, chart: str, source: str, columns: Columns, *, seen: bool | None = None) -> None:
        """Replace a source everywhere."""
        with self.lock:
            self.known.put(chart, source, columns, seen=seen)
            if seen is False:
                self.known.seen.discard(chart)
            for sheet in self.sheets:
                sheet.put(chart, source, columns, seen)

    def append(self, chart: str, source: str, columns: Columns, whole: Mapping[str, Any]) -> None:
        """Add to a source everywhere."""
        with self.lock:
            self.known.append(chart, source, columns, whole)
            for sheet in self.sheets:
                sheet.append(chart, source, columns)

    def span(self, chart: str, low: float, high: float) -> None:
        """Move a y range everywhere."""
        with self.lock:
            self.known.span(chart, low, high)
            for sheet in self.sheets:
                sheet.span(chart, low, high)

    def say(self, chart: str, text: str) -> None:
        """Keep the words."""
        self.known.say(chart, text)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold the feed while a page is being made from what is known."""
        with self.lock:
            yield
