from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from aiinfra_widgets.cli import main


@dataclass
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """The message of a command that was refused: nothing on standard output, no traceback."""
        assert self.code != 0
        assert self.out == ""
        assert "Traceback" not in self.err
        assert self.err.startswith("aiinfra: "), self.err
        return self.err.removeprefix("aiinfra: ").rstrip("\n")


@pytest.fixture
def aiinfra(monkeypatch, capfd) -> Callable[..., Said]:
    """Carry out a command in this process."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["aiinfra", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return Said(int(end.value.code or 0), out, err)

    return run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, so that it can be seen what was made there."""
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
