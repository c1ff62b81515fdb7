"""docs/validation.md is what `aiinfra validate` prints, up to what another processor's last digits change."""

from __future__ import annotations

import re
from pathlib import Path

from aiinfra_widgets.validation import report, rows
from aiinfra_widgets.validation.validate import validate

#: Fits run through an optimiser, whose last digits differ between machines; shown errors have one decimal.
TOLERANCE = 0.3
NUMBER = re.compile(r"(?<![\w.-])[+-]?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")


def test_the_page_is_the_command_s_output(repo: Path) -> None:
    page = (repo / "docs" / "validation.md").read_text().split("<!-- output of: aiinfra validate --markdown -->\n")[1]
    now = report.markdown(validate(rows.read(rows.shipped())))
    advice = "write it again: aiinfra validate --markdown, below the comment in docs/validation.md"
    before, after = page.strip().splitlines(), now.strip().splitlines()
    assert len(before) == len(after), advice
    for old, new in zip(before, after, strict=True):
        assert NUMBER.sub("#", old) == NUMBER.sub("#", new), advice
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
            assert abs(float(a) - float(b)) <= TOLERANCE, f"{old}\n{new}\n{advice}"
