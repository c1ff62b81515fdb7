"""One visual language: colours, fonts and sizes of every figure and table of the lab.

A part of a step has the same colour everywhere. Predicted is a line with a band, measured are points with whiskers,
published are diamonds; so colour is never the only cue. `tests/widgets/test_widgets_theme.py` simulates the three kinds of
colour blindness on the palette, and measures its contrast with light and dark paper.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..palette import LABELS as LABELS
from ..palette import MEASURED as MEASURED
from ..palette import OTHER_PART, PARTS
from ..palette import PREDICTED as PREDICTED
from ..palette import PUBLISHED as PUBLISHED

#: Text and rules that read on white and on black; in JupyterLab the theme's own colours replace it.
INK = "#767676"
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
STATIC = Path(__file__).parent / "static"
#: Tags by which the live view finds what follows the theme.
INK_TAG, PAPER_TAG = "ink", "paper"


def part_colour(part: str) -> str:
    """Return the fixed colour of a part of a step; grey for one that has none."""
    return PARTS.get(part, OTHER_PART)


def dark(colour: str) -> bool:
    """Whether text on `colour` must be white, by its relative luminance."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18


def dress(figure: Any) -> Any:
    """Give a Bokeh figure the lab's fonts, sizes and rules, and return it; its colours read on light and dark paper."""
    figure.background_fill_color = figure.border_fill_color = None
    figure.outline_line_color = None
    figure.min_border_left, figure.min_border_right = 4, 12
    figure.min_border_top, figure.min_border_bottom = 4, 4
    figure.title.text_font_size, figure.title.text_font_style = "13px", "normal"
    figure.title.text_font, figure.title.text_color = FONT, INK
    for axis in figure.axis:
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_standoff = 6
        axis.axis_line_color = axis.major_tick_line_color = INK
        axis.axis_line_alpha = axis.major_tick_line_alpha = 0.5
        axis.minor_tick_line_color = None
        axis.major_tick_in, axis.major_tick_out = 0, 4
    for grid in figure.grid:
        grid.grid_line_color, grid.grid_line_alpha = INK, 0.18
    figure.xgrid.grid_line_color = None
    for legend in figure.legend:
        legend.label_text_font, legend.label_text_font_size, legend.label_text_color = FONT, "11px", INK
        legend.background_fill_alpha, legend.border_line_color = 0.0, None
        legend.spacing, legend.padding, legend.margin = 1, 2, 4
        legend.glyph_height = legend.glyph_width = 14
        legend.label_standoff = 6
    figure.toolbar.logo = None
    figure.toolbar.autohide = True
    return figure


@cache
def style_sheet() -> str:
    """Return the CSS of the lab's widgets; every rule is inside `.aiinfra-lab`, and colours are JupyterLab's variables."""
    parts = "".join(f"--aiinfra-{name}:{colour};" for name, colour in PARTS.items())
    roles = f"--aiinfra-predicted:{PREDICTED};--aiinfra-measured:{MEASURED};--aiinfra-published:{PUBLISHED};"
    return f".aiinfra-lab{{{parts}{roles}}}\n" + (STATIC / "lab.css").read_text(encoding="utf-8")


@cache
def live_script() -> str:
    """Return the JavaScript of the live figures."""
    return (STATIC / "live.js").read_text(encoding="utf-8")
