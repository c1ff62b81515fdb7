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
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


#: Distances in OKLab (Ottosson 2020; lightness is 0 to 1): about 0.02 is just seen side by side. Parts lie side by side in one
#: bar and are named beside it; roles differ in shape, too.
APART = {"parts": 0.08, "roles": 0.1}
#: WCAG's ratio. Roles are thin marks and keep what it asks of graphics; parts are areas that touch each other.
CONTRAST = {"parts": 1.6, "roles": 3.0}
PAPERS = {"light": "#FFFFFF", "dark": "#111111"}
GROUPS = {
    "parts": theme.PARTS,
    "roles": {"predicted": theme.PREDICTED, "measured": theme.MEASURED, "published": theme.PUBLISHED},
}


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(colour: str, blindness: str) -> np.ndarray:
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1)
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    opponent = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(opponent) @ np.cbrt(np.array(cones) @ seen)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def too_close(colours: dict[str, str], blindness: str, least: float) -> list[str]:
    pairs = itertools.combinations(colours.items(), 2)
    found = [(a, b, float(np.linalg.norm(oklab(ca, blindness) - oklab(cb, blindness)))) for (a, ca), (b, cb) in pairs]
    return [f"{a} and {b}: {d:.3f}" for a, b, d in found if d < least]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_stay_apart_whoever_looks(blindness: str, group: str) -> None:
    assert too_close(GROUPS[group], blindness, APART[group]) == []


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("paper", PAPERS)
def test_colours_show_on_light_and_on_dark_paper(paper: str, group: str) -> None:
    weak = {
        n: f"{found:.2f}" for n, c in GROUPS[group].items() if (found := contrast(c, PAPERS[paper])) < CONTRAST[group]
    }
    assert weak == {}


def test_the_check_finds_colours_that_only_some_can_tell_apart() -> None:
    red_and_green = {"red": "#C03030", "green": "#6A7A10"}
    assert too_close(red_and_green, "none", APART["parts"]) == []
    assert too_close(red_and_green, "deuteranopia", APART["parts"]) != []


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
