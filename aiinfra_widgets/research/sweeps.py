"""`sweep("training", {"nodes": [1, 2], "global_batch": [64, 128]}, repeats=3)`: many runs by a plan, in one warm pool of ranks.

Everything is predicted before anything is measured. A sweep that was killed at any moment goes on where it was: a trial that was
under way is run again, no finished one is. A trial that fails or is refused is a row with its reason, and stops nothing else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AdmissionError, ControlError, ModelInputError, SpecError
from ..experiment import Experiment, experiment
from ..launch.place import Place
from ..launch.session import Session, this_machine, watch
from ..machine.limits import admit
from ..machine.profile import Machine
from ..runs.home import home
from ..runs.reader import RunReader
from ..runs.status import Status, status
from . import folder as folders
from .design import Design, Factor, Trial, factor, points, trials
from .folder import Journal
from .provenance import provenance

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
#: Longest time for one trial, the start of it included.
LIMIT_S = 600.0
#: A trial whose ranks went away under it - their owner or their pool was ended - says nothing of its point: it is tried again.
ATTEMPTS = 3
#: How long the ranks of a killed sweep may take to go away.
PATIENCE_S = 30.0
#: States after which a trial is not run again by itself.
ENDED = ("done", "failed", "refused", "timed-out")


@dataclass(frozen=True, slots=True)
class End:
    """What became of a trial."""

    state: str
    reason: str = ""
    run: str | None = None
    wall_s: float | None = None


class Sweep:
    """A sweep as data, whether it is finished or not; `run` goes on with it.

    Attributes:
        folder: Its directory.
        plan: As written.
        trials: Every run to be made, in order.
    """

    def __init__(self, path: Path | str) -> None:
        self.folder, self.plan, self.experiment, self.machine = folders.read(path)
        self.trials = folders.trials_of(self.experiment, self.plan)
        self.journal = Journal(self.folder.journal)

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.folder.path

    @property
    def factors(self) -> tuple[str, ...]:
        """The fields that vary."""
        return tuple(self.plan["factors"])

    def ends(self) -> dict[int, End]:
        """Return what became of each trial that has ended."""
        known = End.__dataclass_fields__
        return {t: End(**{k: v for k, v in line.items() if k in known}) for t, line in self.journal.ended().items()}

    def counts(self) -> dict[str, int]:
        """Return how many trials are in which state; those still to be run are "open"."""
        states = [e.state for e in self.ends().values()]
        found = {s: states.count(s) for s in dict.fromkeys(states)}
        return {**found, "open": len(self.trials) - len(states)} if len(states) < len(self.trials) else found

    def table(self) -> pd.DataFrame:
        """Return one tidy table; see `research.table`."""
        from .table import sweep_table

        return sweep_table(self)

    def summary(self, name: str) -> list[dict[str, Any]]:
        """Return one row for each point: its factors, `predicted`, the median of what its runs `measured`, `least`, `most`, `problem`.

        Args:
            name: A quantity.
        """
        import numpy as np

        table, found = self.table(), []
        for point in sorted({t.point for t in self.trials}):
            first = next(t for t in self.trials if t.point == point)
            rows = table[table["point"] == point]
            mine = rows[rows["quantity"] == name]
            good = [float(v) for v in mine[mine["settled"].fillna(False)]["measured"].dropna()]
            reasons = rows[rows["state"] != "done"]["reason"].dropna().tolist()
            expected = mine["predicted"].dropna().tolist()
            if not good and not reasons and len(rows):
                reasons = [f"too short to settle: more {self.experiment.tick}s are needed before anything is compared"]
            found.append(
                {
                    **{f: getattr(first.spec, f) for f in self.factors}, "runs": len(good),
                    "predicted": expected[0] if expected else None, "measured": float(np.median(good)) if good else None,
                    "least": min(good, default=None), "most": max(good, default=None), "problem": reasons[0] if reasons else "",
                }
            )  # fmt: skip
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as plain JSON types: plan without its trials, how many runs are in which state, a row for each point."""
        plan = {k: v for k, v in self.plan.items() if k != "trials"}
        return {
            "sweep": str(self.path), **plan, "runs": len(self.trials), "counts": self.counts(),
            "points": {name: self.summary(name) for name in self.experiment.compared[:1]},
        }  # fmt: skip

    def run(self, progress: Progress | None = None, *, retry: bool = False) -> Sweep:
        """Run what was not run yet, and write the table.

        Args:
            progress: Told how many trials have ended, of how many, and what goes on.
            retry: Also run again what failed, was refused or took too long; what it did before is kept.

        Raises:
            ControlError: Another process works on it, or it was begun on another machine.
            LaunchError: No ranks can be started at all.
            StorageError: The disk is full; resume it later.
        """
        here = this_machine()
        if _host(here) != _host(self.machine):
            raise ControlError(
                f"the sweep {self.path} was begun on the machine {_host(self.machine)}, and this is {_host(here)}: its table would mix "
                f"two machines; run the same plan here with: aiinfra rerun {self.path} -o DIR"
            )
        with folders.alone(self.folder):
            say = progress or (lambda done, total, what: None)
            folders.keep_predictions(self.folder, self.experiment, self.trials, self.machine)
            done = {t for t, e in self.ends().items() if e.state == "done" or not retry}
            left = [t for t in self.trials if t.index not in done]
            if left:
                Runner(self, say).run(left)
        from .table import write_tables

        write_tables(self)
        return self

    def __repr__(self) -> str:
        said = ", ".join(f"{n} {state}" for state, n in self.counts().items())
        return f"Sweep of {self.experiment.name} over {', '.join(self.factors)}: {len(self.trials)} runs, {said}; {self.path}"


class Runner:
    """Carries out trials one after the other; holds the ranks."""

    def __init__(
        self, sweep: Sweep, say: Progress, *, place: Place | None = None, journal: Journal | None = None
    ) -> None:
        self.sweep, self.say, self.place, self.journal = sweep, say, place, journal or sweep.journal
        self.session = Session(sweep.machine, runs=sweep.folder.runs, place=place)
        self.attempts = sweep.journal.begun()
        fits = [t.spec.ranks for t in sweep.trials if self._fits(t)]
        self.room = max(fits, default=0)

    def _fits(self, trial: Trial) -> bool:
        try:
            self.place.admit(trial.spec.ranks) if self.place else admit(trial.spec.ranks, self.sweep.machine)
        except AdmissionError:
            return False
        return True

    def run(self, left: Sequence[Trial]) -> None:
        """Run trials one after the other, each to its end."""
        total = len(self.sweep.trials)
        done = total - len(left)
        ended = self.sweep.journal.ended()
        try:
            for trial in left:
                said = " ".join(f"{n}={getattr(trial.spec, n)}" for n in self.sweep.factors)
                self.say(done, total, said)
                again = trial.index in self.attempts and trial.index not in ended
                end = (self._finished_meanwhile(trial) if again else None) or self._run(trial)
                self.journal("ended", trial.index, attempt=self.attempts[trial.index], **_plain(end))
                done += 1
            self.say(total, total, "done")
        finally:
            self.session.close()

    def _finished_meanwhile(self, trial: Trial) -> End | None:
        """A trial that was under way when the sweep was killed: what it came to, if it came to its end by itself."""
        run = folders.run_of(self.sweep.folder, trial.index, self.attempts[trial.index])
        if run is None:
            return None
        reader = RunReader(run)
        reader.poll()
        if status(reader).state == "new":  # made, but not handed to any ranks yet
            return None
        now = _wait(reader, PATIENCE_S)
        if (
            not now.final
        ):  # ranks that nobody holds any more, and that do not go away: they would share the cores with ours
            now = self.session.stop(reader)
        return End("done", now.message, run.id, _wall_s(reader)) if now.state == "done" else None

    def _run(self, trial: Trial) -> End:
        for _ in range(ATTEMPTS):
            attempt = self.attempts.get(trial.index, -1) + 1
            self.attempts[trial.index] = attempt
            self.journal("begun", trial.index, attempt=attempt)
            end = self._attempt(trial, attempt)
            if end.state != "interrupted":
                return end
        return End("failed", f"{end.reason}; tried {ATTEMPTS} times", end.run, end.wall_s)

    def _attempt(self, trial: Trial, attempt: int) -> End:
        try:
            if self._fits(trial):
                self.session.ready(self.room).wait_ready()
            reader = self.session.launch(
                self.sweep.experiment.name,
                trial.spec,
                room=max(self.room, trial.spec.ranks),
                note=folders.note_of(trial.index, attempt),
            )
        except (AdmissionError, ModelInputError, SpecError) as error:
            return End("refused", str(error))
        limit_s = float(self.sweep.plan.get("limit_s") or LIMIT_S)
        try:
            now = _wait(reader, limit_s)
        except BaseException:  # somebody ends the sweep: the trial is stopped, and run again by a resume
            self.session.stop(reader, by="sweep")
            raise
        late = not now.final
        if late:
            now = self.session.stop(reader, by="sweep")
        wall_s = _wall_s(reader)
        if late and now.state != "done":
            return End("timed-out", f"not done after {limit_s:g} s; {now.message}", reader.run.id, wall_s)
        if now.state in {"done", "interrupted"}:
            return End(now.state, now.message, reader.run.id, wall_s)
        return End("failed", now.message, reader.run.id, wall_s)


def _wait(reader: RunReader, limit_s: float) -> Status:
    end_s = time.monotonic() + limit_s
    for now in watch(reader, until=lambda s: s.final or time.monotonic() > end_s):
        last = now
    return last


def _wall_s(reader: RunReader) -> float | None:
    """Return how long the run took, from its making to its last event."""
    made_s = reader.manifest.get("made_at_s")
    last_s = max((e["wall_s"] for e in reader.events if "wall_s" in e), default=None)
    return None if made_s is None or last_s is None else round(max(float(last_s) - float(made_s), 0.0), 4)


def _plain(end: End) -> dict[str, Any]:
    return {"state": end.state, "reason": end.reason, "run": end.run, "wall_s": end.wall_s}


def _host(machine: Machine) -> str:
    return machine.id.rsplit("-", 2)[0]


def planned(
    name: str,
    over: Mapping[str, Any],
    *,
    fixed: Mapping[str, Any] | None = None,
    repeats: int = 1,
    design: Design = "grid",
    num_points: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    new_seeds: bool = False,
    limit_s: float = LIMIT_S,
) -> tuple[Experiment, list[Trial], list[Factor]]:
    """Return the experiment, every run and what varies, all validated; nothing is written. Arguments as for `sweep`.

    Raises:
        SpecError: A field, a value or a combination that is not allowed.
    """
    exp = experiment(name)
    if not isinstance(over, Mapping):
        raise SpecError(f"over: got {over!r}; give fields with their values, such as {{'nodes': [1, 2]}}")
    if not 0 < limit_s <= 86400:
        raise SpecError(f"limit_s: got {limit_s}; allowed: above 0, at most 86400 s for one run")
    both = sorted(set(over) & set(fixed or {}))
    if both:
        raise SpecError(f"{', '.join(both)}: set to one value and varied too; do one of them")
    base = exp.spec.make(dict(fixed or {}))
    factors = [factor(exp, field, given) for field, given in over.items()]
    if new_seeds and "seed" in over:
        raise SpecError("seed: it is varied, and each repeat shall get another one too; do one of them")
    found = points(exp, base, factors, design, num_points, seed)
    return exp, trials(exp, base, found, repeats=repeats, seed=seed, shuffle=shuffle, new_seeds=new_seeds), factors


def plan_sweep(
    name: str,
    over: Mapping[str, Any],
    *,
    out: Path | str | None = None,
    fixed: Mapping[str, Any] | None = None,
    repeats: int = 1,
    design: Design = "grid",
    num_points: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    new_seeds: bool = False,
    limit_s: float = LIMIT_S,
    machine: Machine | None = None,
) -> Sweep:
    """Make a sweep without running it: every Spec is validated, then the plan is written. Arguments as for `sweep`.

    Raises:
        SpecError: A field, a value or a combination that is not allowed; nothing was written.
        ControlError: The folder is in use.
        StorageError: It cannot be written.
    """
    _, planned_trials, factors = planned(
        name, over, fixed=fixed, repeats=repeats, design=design, num_points=num_points, seed=seed, shuffle=shuffle,
        new_seeds=new_seeds, limit_s=limit_s,
    )  # fmt: skip
    here = machine or this_machine()
    plan = {
        "experiment": name, "design": design, "repeats": repeats, "order_seed": seed, "shuffle": shuffle, "new_seeds": new_seeds,
        "limit_s": limit_s, "made_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "machine_id": here.id,
        "factors": {f.name: [f.range.low, f.range.high] if f.range else list(f.levels) for f in factors},
        "ranges": [f.name for f in factors if f.range], "fixed": {k: getattr(planned_trials[0].spec, k) for k in fixed or {}},
        "provenance": provenance(),
        "trials": [{"point": t.point, "repeat": t.repeat, "spec": t.spec.model_dump()} for t in planned_trials],
    }  # fmt: skip
    return _begin(plan, out, here)


def _begin(plan: dict[str, Any], out: Path | str | None, machine: Machine) -> Sweep:
    """Write a plan into a new folder: the one that is named, else one of its own in the lab's home."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{plan['experiment']}-{secrets.token_hex(2)}"
    return Sweep(folders.begin(Path(out) if out is not None else home() / "sweeps" / stamp, plan, machine).path)


def sweep(name: str, over: Mapping[str, Any], *, progress: Progress | None = None, **how: Any) -> Sweep:
    """Plan a sweep, run it, and return it.

    Args:
        name: Of the experiment.
        over: Fields that vary, each with its values: a list, a `Range`, or text as on the command line ("1,2", "0.001..0.1").
        progress: Told how many trials have ended, of how many, and what goes on.
        how: `out` (a new folder; default: one in the lab's home), `fixed` (other fields), `repeats`, `design` (one of
            `research.design.DESIGNS`), `num_points`, `seed` (of order and design), `shuffle`, `new_seeds`, `limit_s` (for one run),
            `machine` (a profile; default: the newest of this machine).

    Raises:
        SpecError: Before anything runs. LaunchError, StorageError: as for `Sweep.run`; go on with `open_sweep(path).run()`.
    """
    return plan_sweep(name, over, **how).run(progress)


def open_sweep(path: Path | str) -> Sweep:
    """Return a sweep that was begun; `.run()` goes on with it.

    Raises:
        RunFormatError: Not a sweep.
    """
    return Sweep(path)


def rerun(path: Path | str, out: Path | str | None = None, machine: Machine | None = None) -> Sweep:
    """Return a new sweep, not run yet, with the plan of another one, on this machine as it is now.

    Raises:
        RunFormatError: Not a sweep. SpecError: This release does not take its Specs.
    """
    other = Sweep(path)
    here = machine or this_machine()
    plan = {k: v for k, v in other.plan.items() if k not in {"format", "kind"}}
    made_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    plan |= {
        "machine_id": here.id,
        "made_at": made_at,
        "provenance": provenance(),
        "plan_of": {"machine_id": other.machine.id, "made_at": other.plan.get("made_at")},
    }
    return _begin(plan, out, here)
