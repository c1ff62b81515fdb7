"""The plain table of colours: one fixed colour for each part of a step, one for each side of a comparison.

It knows no drawing library, so that figures on a screen (`widgets/theme.py`) and figures for paper (`research/figures.py`) share it.
The palette is that of Okabe and Ito (2008), chosen for colour-blind readers, with a darker yellow, which shows on white, and a
sky blue, a brown and a violet more. `tests/widgets/test_widgets_theme.py` holds the distances and contrasts that it keeps.
"""

from __future__ import annotations

#: By `Quantity.part`.
PARTS = {
    "compute": "#0072B2",
    "data": "#7CC4EE",
    "communication": "#E69F00",
    "wait": "#CC79A7",
    "bubble": "#E3CB0A",
    "injected": "#8C2D19",
    "runtime": "#6F6F6F",
}
OTHER_PART = "#A3A3A3"
#: Colours of things that are only told apart, such as the bars of a timeline, in turn.
LABELS = tuple(PARTS[p] for p in ("compute", "communication", "data", "wait", "runtime", "bubble", "injected"))
PREDICTED = "#009E73"
MEASURED = "#D55E00"
PUBLISHED = "#7A5CC7"
