"""The learner's own predictions, committed before the reveal. One JSON object per line, appended, never rewritten."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..runs.home import ledger_path, make_private


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


def read(path: Path | None = None) -> list[dict[str, Any]]:
    """Return the learner's predictions, oldest first, each with `run` and `measured` once they are known."""
    target = path or ledger_path()
    found: dict[str, dict[str, Any]] = {}
    if not target.exists():
        return []
    for line in target.read_text(encoding="utf-8").splitlines():
        try:
            data = json.loads(line)
            if data["kind"] == "prediction":
                found[data["entry"]] = {**data, "run": None, "measured": None}
            elif data["entry"] in found:
                found[data["entry"]].update(run=data["run"], measured=data["measured"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that a crash tore
    return list(found.values())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
