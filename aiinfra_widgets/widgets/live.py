"""Live Bokeh figures in a notebook: one anywidget, BokehJS from the installed package, data as binary buffers.

The kernel keeps what the figures show, so that a page that is opened again gets its history: it says "hello" and is sent
everything. Sending is guarded, because a "hello" comes in another thread than the one that follows the run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from ..texts import html_language, tr
from .figures import Chart, Columns
from .notebook import FIGURE_MIME, bundle
from .theme import live_script, style_sheet


@cache
def _bokehjs() -> str:
    import bokeh

    return (Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")


@dataclass
class _Message:
    """What one tick changes, sent as one message: JSON for the structure, one buffer of doubles for the numbers."""

    updates: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[np.ndarray[Any, np.dtype[np.float64]]] = field(default_factory=list)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def add(self, chart: str, source: str, columns: Columns, *, reset: bool, seen: bool | None) -> None:
        text = {k: list(v) for k, v in columns.items() if not _numeric(v)}
        sizes = []
        for name, values in columns.items():
            if name not in text:
                array = np.ascontiguousarray(values, dtype="<f8")
                self.numbers.append(array)
                sizes.append((name, len(array)))
        self.updates.append(
            {"chart": chart, "source": source, "columns": sizes, "text": text, "reset": reset, "seen": seen}
        )

    def send(self, widget: anywidget.AnyWidget) -> None:
        if self.updates or self.ranges or self.labels:
            data = b"".join(a.tobytes() for a in self.numbers)
            content = {"type": "data", "updates": self.updates, "ranges": self.ranges, "labels": self.labels}
            widget.send(content, buffers=[data] if data else [])


class Live(anywidget.AnyWidget):
    """Several charts, side by side as the style sheet says, each fed by the names of its data sources.

    Args:
        charts: Built by `figures`; with data or empty.
        classes: CSS classes of the container.
    """

    _esm = live_script()
    _css = style_sheet()
    charts: Any = traitlets.List().tag(sync=True)
    classes: Any = traitlets.List().tag(sync=True)
    language = traitlets.Unicode().tag(sync=True)
    broken = traitlets.Unicode().tag(sync=True)
    bokeh_version = traitlets.Unicode().tag(sync=True)

    def __init__(self, charts: Iterable[Chart], classes: Iterable[str] = ()) -> None:
        import bokeh

        self._lock = threading.RLock()
        self._kept: dict[tuple[str, str], tuple[Columns, bool | None]] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._labels: dict[str, str] = {}
        self._batch: _Message | None = None
        shown = [_described(c) for c in charts]
        broken = tr("The figures cannot be drawn: {reason}. Run the cell again.")
        super().__init__(
            charts=shown,
            classes=list(classes),
            bokeh_version=bokeh.__version__,
            language=html_language(),
            broken=broken,
        )
        self.on_msg(self._said)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather what is done inside into one message, so that a tick is drawn once."""
        with self._lock:
            self._batch = _Message()
            try:
                yield
            finally:
                message, self._batch = self._batch, None
                message.send(self)

    def put(self, chart: str, source: str, columns: Columns, *, seen: bool | None = None) -> None:
        """Replace the data of one source.

        Args:
            chart, source: Names given when the chart was built.
            columns: Equally long; numbers as float64, text as it is.
            seen: True takes away the caption of an empty chart, False puts it back, None leaves it.
        """
        with self._now() as message:
            self._kept[chart, source] = (columns, seen)
            message.add(chart, source, columns, reset=True, seen=seen)

    def append(self, chart: str, source: str, columns: Columns, whole: Mapping[str, Any]) -> None:
        """Add points to a source.

        Args:
            chart, source: Names given when the chart was built.
            columns: Only the new points.
            whole: The columns with the new points, for a page that is opened later.
        """
        with self._now() as message:
            self._kept[chart, source] = (whole, True)
            message.add(chart, source, columns, reset=False, seen=True)

    def span(self, chart: str, low: float, high: float) -> None:
        """Move the y range; a reader who has zoomed keeps theirs."""
        with self._now() as message:
            if self._ranges.get(chart) != (low, high):
                self._ranges[chart] = message.ranges[chart] = (low, high)

    def say(self, chart: str, text: str) -> None:
        """Set what a screen reader says of a chart."""
        with self._now() as message:
            if self._labels.get(chart) != text:
                self._labels[chart] = message.labels[chart] = text

    def replay(self) -> None:
        """Send everything, for a view that has just been opened."""
        with self._lock:
            message = _Message(ranges=dict(self._ranges), labels=dict(self._labels))
            for (chart, source), (columns, seen) in self._kept.items():
                message.add(chart, source, columns, reset=True, seen=seen)
            message.send(self)

    @contextmanager
    def _now(self) -> Iterator[_Message]:
        with self._lock:
            if self._batch is not None:
                yield self._batch
                return
            message = _Message()
            yield message
            message.send(self)

    def _said(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        if content.get("type") == "need-bokehjs":
            self.send({"type": "bokehjs", "code": _bokehjs()})
        elif content.get("type") == "hello":
            self.replay()


def _described(chart: Chart) -> dict[str, Any]:
    """Return a chart as the page takes it: the Bokeh figure, its words, its legend."""
    words = {k: getattr(chart, k) for k in ("name", "empty", "label", "title", "help")}
    keys = [{k: getattr(key, k) for k in ("text", "sign", "colour", "source", "column", "help")} for key in chart.keys]
    return {**words, "item": bundle(chart.figure, "")[FIGURE_MIME], "keys": keys}


def _numeric(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "fiub"
