"""Texts for people, in their language: `tr("Run")`. English is the key, and what is shown where there is no translation."""

from __future__ import annotations


def tr(text: str, /, **values: object) -> str:
    """Return `text` in the reader's language, with `values` put in as `str.format` does."""
    return text.format(**values) if values else text
