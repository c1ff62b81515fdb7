"""The palette under the three kinds of colour blindness, and one style sheet for all."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from aiinfra_widgets.quantities import QUANTITIES
from aiinfra_widgets.widgets import theme

#: Machado, Oliveira & Fernandes 2009, table 1, severity 1.0; on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab_colour(colour: str, blindness: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_parts_stay_apart_for_colour_blind_readers(blindness: str) -> None:
    for (a, ca), (b, cb) in itertools.combinations(theme.PARTS.items(), 2):
        distance = float(np.linalg.norm(lab_colour(ca, blindness) - lab_colour(cb, blindness)))
        assert distance > 10, f"{a} and {b} look alike with {blindness}: {distance:.1f}"


def test_every_part_of_the_vocabulary_has_a_colour() -> None:
    assert {q.part for q in QUANTITIES.values() if q.part} <= set(theme.PARTS)


def test_the_style_sheet_stays_inside_the_lab_and_takes_its_colours_from_the_theme() -> None:
    css = re.sub(r"/\*.*?\*/", "", theme.style_sheet(), flags=re.S)
    selectors = [
        s.strip() for block in re.findall(r"([^{}]+)\{", css) for s in block.split(",") if not s.strip().startswith("@")
    ]
    assert [s for s in selectors if "aiinfra" not in s] == []
    assert "http" not in css
    rules = css.split("}", 1)[1]  # behind the palette
    assert "#" not in re.sub(r"var\([^)]*\)", "", rules), "a colour that does not follow the theme"
