"""The learner's own predictions, committed before the reveal. One JSON object per line, appended, never rewritten.

An entry is a line of the kind `prediction`; what was measured (`outcome`) and why the two differ (`explanation`) are lines
of their own with the same `entry`. A reader takes what it knows and leaves the rest, so older and newer ledgers both read.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ControlError, StorageError
from ..runs.home import ledger_path, make_private

#: Characters of an explanation, at most.
LONGEST = 2000


def _append(line: Mapping[str, Any], path: Path | None) -> None:
    target = path or ledger_path()
    make_private(target.parent)
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, (json.dumps(line, default=str) + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise StorageError(
            f"cannot write the ledger {target}: {error.strerror}; free some space or set AIINFRA_HOME"
        ) from error


def commit(lab: str, question: str, value: float, spec: Mapping[str, Any], path: Path | None = None) -> str:
    """Write down what the learner expects, before anything is revealed, and return the entry's id.

    Args:
        lab: Name of the experiment.
        question: The quantity that was asked for.
        value: The learner's number, in base units.
        spec: What it was asked of.
        path: Of the ledger; None is the user's own.

    Raises:
        StorageError: The ledger cannot be written.
    """
    entry = secrets.token_hex(6)
    _append(
        {
            "entry": entry, "kind": "prediction", "at": _now(), "lab": lab, "question": question, "value": value,
            "spec": dict(spec),
        },
        path,
    )  # fmt: skip
    return entry


def settle(entry: str, run: str, measured: float | None, path: Path | None = None) -> None:
    """Add what was measured to an earlier entry, as a line of its own.

    Args:
        entry: From `commit`.
        run: Id of the run.
        measured: In base units; None where the run did not get that far.
        path: As for `commit`.

    Raises:
        StorageError: The ledger cannot be written.
    """
    _append({"entry": entry, "kind": "outcome", "at": _now(), "run": run, "measured": measured}, path)


def explain(entry: str, text: str, path: Path | None = None) -> None:
    """Add the learner's own words on why prediction and measurement differ; the latest words of an entry count.

    Args:
        entry: From `commit`.
        text: In any language, at most `LONGEST` characters.
        path: As for `commit`.

    Raises:
        ControlError: No words, or too many.
        StorageError: The ledger cannot be written.
    """
    words = " ".join(text.split())
    if not 0 < len(words) <= LONGEST:
        raise ControlError(f"your explanation: got {len(words)} characters; allowed: 1 to {LONGEST}")
    _append({"entry": entry, "kind": "explanation", "at": _now(), "text": words}, path)


def read(path: Path | None = None) -> list[dict[str, Any]]:
    """Return the learner's predictions, oldest first, each with `run`, `measured` and `explanation` once they are known.

    Args:
        path: As for `commit`; a file that is not there is an empty ledger.

    Raises:
        StorageError: The ledger cannot be read.
    """
    target = path or ledger_path()
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = target.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read the ledger {target}: {error.strerror}") from error
    for line in lines:
        try:
            data = json.loads(line)
            if data["kind"] == "prediction":
                found[data["entry"]] = {**data, "run": None, "measured": None, "explanation": None}
            elif data["kind"] == "outcome" and data["entry"] in found:
                found[data["entry"]].update(run=data["run"], measured=data["measured"])
            elif data["kind"] == "explanation" and data["entry"] in found:
                found[data["entry"]].update(explanation=data["text"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that a crash tore
    return list(found.values())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
