"""Windows of a shipped text, character by character. Light: no torch, nothing generated, nothing fetched.

Legend: N windows, T characters of each.
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..machine.catalog import data_folder
from .datasets import Split
from .facts import WorkloadFacts
from .language_facts import CHARACTERS, Text, text_of

Tokens = NDArray[np.int64]


def load(facts: WorkloadFacts, seed: int, cache: Path) -> Split:
    """Return ((x, y) of train, (x, y) of test): x int64 (N, T), and y, the same characters one place on.

    The training windows follow one another without a gap, so an epoch reads every character once. The test windows are
    spread evenly over the part of the text that is held out.

    Args:
        facts: Of a workload of this family.
        seed: Changes nothing: the text and its split are the same in every run, so that losses can be compared.
        cache: Not needed, as reading the text takes a few milliseconds.

    Raises:
        DataError: The shipped text is not there, or damaged.
    """
    text, (tokens,) = text_of(facts.name), facts.sample_shape
    read = characters(text)
    train, held_out = read[: text.train_characters], read[text.train_characters :]
    starts = np.linspace(0, len(held_out) - tokens - 1, facts.test_samples).astype(np.int64)
    return _windows(train, np.arange(facts.train_samples) * tokens, tokens), _windows(held_out, starts, tokens)


@lru_cache(maxsize=4)
def characters(text: Text) -> NDArray[np.uint8]:
    """Return a shipped text as tokens: 0 is the line feed, 1 to 95 are the printable ASCII characters from the space on.

    Raises:
        DataError: As `load`.
    """
    path = data_folder() / "texts" / f"{text.name}.txt.gz"
    hint = "reinstall the package or clone the whole repository"
    try:
        raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {hint}") from error
    tokens = np.where(raw == ord("\n"), 0, raw - np.uint8(31)).astype(np.uint8)
    if len(tokens) != text.characters or tokens.max() >= CHARACTERS:
        raise DataError(f"{path}: holds {len(tokens)} characters, expected {text.characters}, all ASCII; {hint}")
    tokens.setflags(write=False)
    return tokens


def written(tokens: Tokens | NDArray[np.uint8]) -> str:
    """Return tokens as text; one that stands for no character is shown as "?"."""
    return "".join("\n" if t == 0 else chr(t + 31) if t < CHARACTERS else "?" for t in map(int, tokens))


def _windows(read: NDArray[np.uint8], starts: Tokens, tokens: int) -> tuple[Tokens, Tokens]:
    places = starts[:, None] + np.arange(tokens)
    return read[places].astype(np.int64), read[places + 1].astype(np.int64)
