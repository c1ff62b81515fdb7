"""What a learner has typed, believed and measured, claim by claim; no interface. Every method may come from a thread of its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import LabError, SpecError
from . import claims
from .claim import Claim, Evidence, find
from .units import Dimensions, said
from .verdicts import Verdict, judge, right_at

FORMAT = 1
#: Share of the time budget, by claim; those that are not named take one share.
SHARES = {"S0-T": 3.0, "S1-edge": 0.5, "S1-train": 2.0, "S2-R": 2.0}
Measure = Callable[[float], Evidence]


class Trials:
    """All claims, and what became of them here.

    Args:
        seconds: About how long all measurements together may take.

    Raises:
        SpecError: Not a number of seconds that is worth anything.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        if not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 10):
            raise SpecError(
                f"seconds: got {seconds!r}; allowed: a number from 10, the time for all measurements together"
            )
        self.claims = claims()
        self.seconds = float(seconds)
        self.typed: dict[str, dict[str, str]] = {name: {} for name in self.claims}
        self.beliefs: dict[str, bool] = {}
        self.problems: dict[str, str] = {}
        self._evidence: dict[Measure, Evidence] = {}
        self._lock, self._measuring = threading.RLock(), threading.Lock()

    def type(self, name: str, **texts: str) -> None:
        """Take up typed inputs of a claim; those that are not named stay.

        Raises:
            UnknownNameError: No such claim.
            SpecError: An input that is not there, or a value that is not allowed; nothing is taken up then.
        """
        claim = find(self.claims, name)
        with self._lock:
            texts = {**self.typed[name], **{k: str(v) for k, v in texts.items()}}
            claim.values(texts)
            self.typed[name] = texts

    def believe(self, name: str, holds: bool) -> None:
        """Write down what the learner expects: does the claim hold on this machine?"""
        self.beliefs[find(self.claims, name).id] = bool(holds)

    def values(self, name: str) -> dict[str, float]:
        """Return the inputs of a claim in base units."""
        return find(self.claims, name).values(self.typed[name])

    def budget_s(self, claim: Claim) -> float:
        """Return how long the measurement of `claim` may take."""
        measured = {c.measure: SHARES.get(c.id, 1.0) for c in reversed(self.claims.values()) if c.measure}
        share = measured[claim.measure] if claim.measure else 0.0
        return self.seconds * share / sum(measured.values())

    def measure(self, name: str) -> Evidence | None:
        """Measure now, on this machine, one claim at a time; None where it is senseless, or where it went wrong (see `problems`)."""
        claim = find(self.claims, name)
        if claim.measure is None:
            return None
        with self._measuring:
            try:
                found = claim.measure(self.budget_s(claim))
            except LabError as error:
                self.problems[name] = f"Not measured: {error}"
                return None
            with self._lock:
                self.problems.pop(name, None)
                self._evidence[claim.measure] = found
            return found

    def measure_all(self, names: Sequence[str] = (), each: Callable[[str], None] = lambda _: None) -> None:
        """Measure several claims, all by default; what two of them share is measured once.

        Args:
            names: Which.
            each: Called with the name of each before it begins.
        """
        done: set[Any] = set()
        for name in names or self.claims:
            claim = find(self.claims, name)
            if claim.measure is not None and claim.measure not in done:
                each(name)
                done.add(claim.measure)
                self.measure(name)

    def evidence(self, name: str) -> Evidence | None:
        """Return what was measured for a claim, None where nothing was."""
        claim = find(self.claims, name)
        return self._evidence.get(claim.measure) if claim.measure else None

    def verdict(self, name: str) -> Verdict:
        """Return the verdict as it stands."""
        return judge(find(self.claims, name), self.evidence(name))

    def dimensions(self, name: str) -> Dimensions:
        """Return what a units library says of the typed inputs."""
        return find(self.claims, name).dimensions(self.values(name))

    def drawn_at(self, name: str) -> dict[str, float]:
        """Return the inputs that the figure is drawn for: the typed ones, but those of the measurement once there is one."""
        found = self.evidence(name)
        return {**self.values(name), **(found.rig if found else {})}

    def results(self) -> dict[str, Any]:
        """Return everything as plain JSON types; base units."""
        rows = [self._row(claim) for claim in self.claims.values()]
        judged = sum(r["measured"] is not None for r in rows)
        message = f"{judged} of {len(rows)} claims measured on this machine"
        return {"format": FORMAT, "status": "done", "message": message, "claims": rows}

    def _row(self, claim: Claim) -> dict[str, Any]:
        verdict, found, dims = self.verdict(claim.id), self.evidence(claim.id), self.dimensions(claim.id)
        values = self.values(claim.id)
        return {
            "id": claim.id, "source": claim.source, "formula": claim.formula, "inputs": self.inputs(claim.id),
            "says": dims.shown or None, "right_model": claim.right_name, "right_value": claim.better(values),
            "examples": [{"printed": w.printed, "computed": w.computed, "same": w.same} for w in claim.worked()],
            "dimension": {"right": dims.right, "expected": dims.expected, "found": dims.found},
            "measured": None if found is None else _measured(claim, found),
            "problem": self.problems.get(claim.id) or claim.senseless or None,
            "belief": self.beliefs.get(claim.id), "verdict": verdict.word, "because": list(verdict.because),
            "errors": [{"what": g.label, "claim": g.claim_error, "right_model": g.right_error} for g in verdict.groups],
        }  # fmt: skip

    def inputs(self, name: str) -> Mapping[str, str]:
        """Return the inputs of a claim as they are written."""
        return {i.name: self.typed[name].get(i.name, i.text) for i in find(self.claims, name).inputs}


def _measured(claim: Claim, found: Evidence) -> dict[str, Any]:
    points = [
        {"at": p.at, "value": p.value, "low": p.low, "high": p.high, "n": p.n, "interval": p.interval, "what": p.label,
         "right_model": right_at(claim, found, p)}
        for p in found.points
    ]  # fmt: skip
    return {
        "swept": claim.axes.swept, "unit": claim.axes.y_unit, "points": points, "rig": dict(found.rig),
        "method": found.method, "when": found.when, "took_s": found.took_s,
    }  # fmt: skip


def right_words(claim: Claim, values: Mapping[str, float]) -> str:
    """Return what the right model says of these inputs, for a person."""
    return said(claim.better(values), claim.right_unit or claim.result)
