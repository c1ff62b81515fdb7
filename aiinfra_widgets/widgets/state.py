"""What a lab knows and does, without any interface: setup, commitment, run, requests and their answers.

Widget callbacks, the thread that follows the run and the running cell all come here, each in a thread of its own, so
every method takes the lock. Views get a `Look`: a snapshot that nobody changes any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..comparison import Comparison, compare
from ..course import ledger
from ..errors import ControlError, LabError
from ..experiment import Experiment, Spec, experiment
from ..launch.pool import NOTEBOOK_GRACE_S, look_at
from ..launch.session import Session, this_machine
from ..quantities import Prediction, quantity, show
from ..runs.layout import find
from ..runs.reader import Event, RunReader, Segment
from ..runs.status import Status, latest_checkpoint_tick, status, traceback_of
from ..texts import N_, told, tr
from .words import asked_text

Phase = Literal["setup", "committed", "running", "ended"]
#: Segments are summarised again after this long, and never for more than a tenth of the time.
SUMMARY_S = 0.5


@dataclass(frozen=True)
class Asked:
    """One request of this lab and what became of it.

    Attributes:
        text: What was asked, in words.
        fields: The live fields it sets.
        answer: The controller's event, None while it is undecided.
    """

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    answer: Event | None = None

    @property
    def refused(self) -> bool:
        """Whether the controller refused it."""
        return self.answer is not None and self.answer["kind"] == "refused"

    def result(self, tick: str) -> str:
        """Say what became of it: tick and measured cost, or the reason of the refusal."""
        if self.answer is None:
            return tr("asked")
        if self.refused:
            return tr("refused. {reason}", reason=told(self.answer.get("reason", "")))
        when = N_("since {tick} {number}, took {time}") if self.fields else N_("done at {tick} {number}, took {time}")
        return tr(when, tick=tr(tick), number=self.answer["tick"], time=show("s", self.answer.get("cost_s")))

    def outcome(self, tick: str) -> str:
        """Say what was asked, and what became of it."""
        return tr("{what}: {result}", what=self.text, result=self.result(tick))


@dataclass(frozen=True)
class Look:
    """Everything a view may show at one moment.

    Attributes:
        number: Grows by one with every change worth drawing.
        segments, comparisons: Of the run, oldest first.
        asked: Requests of this lab, oldest first.
        latest: Newest sample of each node.
        members: Nodes at work; `nodes` are all that were started, `lost` those that died.
        traceback: Of the node that failed, or "".
        can_resume: There is a checkpoint to go on from.
    """

    number: int = 0
    phase: Phase = "setup"
    spec: Spec | None = None
    status: Status | None = None
    run: str = ""
    segments: Sequence[Segment] = ()
    comparisons: Sequence[Comparison] = ()
    events: Sequence[Event] = ()
    asked: Sequence[Asked] = ()
    latest: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    members: Sequence[int] = ()
    nodes: Sequence[int] = ()
    lost: Sequence[int] = ()
    traceback: str = ""
    can_resume: bool = False
    guess: float | None = None
    prediction: Prediction | None = None
    refused: str = ""
    note: str = ""

    @property
    def going(self) -> bool:
        """Whether ranks work or are about to."""
        return self.phase == "running" and (self.status is None or not self.status.final)

    @property
    def paused(self) -> bool:
        """Whether the run is held."""
        return self.status is not None and self.status.state == "paused"


class LabState:
    """The model behind `Lab`.

    Args:
        name: Of the experiment.
        values: Spec fields; validated now.
        watched: Somebody looks (a notebook): runs then outlive a dead kernel for a grace.
        session: None makes one when the first run is asked for, so that looking at a lab costs nothing.

    Raises:
        UnknownNameError: No such experiment.
        SpecError: A value that is not allowed.
    """

    def __init__(self, name: str, values: Mapping[str, Any], *, watched: bool, session: Session | None = None) -> None:
        self.lock = threading.RLock()
        self.experiment: Experiment = experiment(name)
        self.spec: Spec = self.experiment.spec.make(values)
        self.watched = watched
        self.session = session or Session(grace_s=NOTEBOOK_GRACE_S if watched else 0.0)
        self.reader: RunReader | None = None
        self.phase: Phase = "setup"
        self.guess: float | None = None
        self.note = ""
        self._entry = ""
        self._expected = 0
        self._asked: list[Asked] = []
        self._summary_s, self._summary_cost_s = 0.0, 0.0
        self._look = Look(spec=self.spec)

    # --- before the run -----------------------------------------------------------------------------------------
    @property
    def question(self) -> str:
        """The quantity that the learner predicts."""
        return self.experiment.compared[0]

    def set_up(self, values: Mapping[str, Any]) -> Spec:
        """Change the setup before the run.

        Raises:
            ControlError: A prediction was committed; it belongs to the setup it was made for.
            SpecError: A value that is not allowed; nothing is changed.
        """
        with self.lock:
            if self.phase in {"committed", "running"}:
                raise ControlError("the setup is fixed once a prediction is committed; start over to change it")
            self.spec = self.spec.changed(values, live_only=False)
            return self.spec

    def commit(self, value: float) -> None:
        """Write the learner's prediction into the ledger and reveal the model's.

        Args:
            value: Of `question`, in base units.

        Raises:
            ControlError: Not a positive number, or committed before.
            StorageError: The ledger cannot be written.
        """
        with self.lock:
            if self.phase not in {"setup", "ended"}:
                raise ControlError("a prediction is committed already; it is changed by starting over")
            if not 0 < value < float("inf"):
                label = quantity(self.question).label
                raise ControlError(f"{label}: got {value!r}; allowed: a number above 0")
            self._entry = ledger.commit(self.experiment.name, self.question, value, self.spec.model_dump())
            self.guess, self.phase = value, "committed"
            self._forget_run()

    def start_over(self) -> None:
        """Go back to the setup; what was run and committed is kept on disk."""
        with self.lock:
            if self.phase == "running":
                raise ControlError("the run still goes on; stop it first")
            self.phase, self.guess, self._entry, self.note = "setup", None, "", ""

    def predict(self, spec: Spec | None = None) -> tuple[Prediction | None, str]:
        """Return what the model says of a Spec, or None and why it says nothing. Calibration done meanwhile is taken up."""
        with self.lock:
            self.session.machine = self.session.machine if self.session.machine.calibrated else this_machine()
            try:
                return self.experiment.predict(spec or self.spec, self.session.machine), ""
            except LabError as error:
                return None, str(error)

    # --- the run ------------------------------------------------------------------------------------------------
    def run(self, *, room: int | None = None, note: str = "") -> RunReader:
        """Start the run and return its reader at once.

        Raises:
            ControlError: One goes on already.
            AdmissionError, LaunchError, StorageError: It could not be started; see `Session.launch`.
        """
        with self.lock:
            if self.phase == "running":
                raise ControlError("a run goes on already; stop it first")
            self.predict()
            self._forget_run()
            self.reader = self.session.launch(self.experiment.name, self.spec, room=room, note=note)
            self.phase, self.note = "running", ""
            return self.reader

    def resume(self) -> RunReader:
        """Continue the run from its last checkpoint.

        Raises:
            ControlError: There is nothing to resume.
        """
        with self.lock:
            if self.reader is None:
                raise ControlError("there is no run to resume; start one")
            self._expected = self.reader.run.incarnations() + 1
            self.reader = self.session.resume(self.reader.run)
            self.phase, self._asked, self._summary_s = "running", [], 0.0
            return self.reader

    def attach(self) -> bool:
        """Find a run of this experiment that outlived its kernel, or that this kernel started, and take it over."""
        with self.lock:
            reader = self.session.attach()
            if reader is None or reader.experiment.name != self.experiment.name:
                return False
            self.reader, self.phase = reader, "running"
            reader.poll()
            self.spec, self.note = reader.asked, N_("This run was already going on; the lab has taken it over.")
            self._recall()
            return True

    def ask(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        verb: str = "",
        arguments: Mapping[str, Any] | None = None,
        at_tick: int | None = None,
    ) -> Asked:
        """Ask something of the run that goes on; the answer comes with a later look.

        Raises:
            ControlError: No run, not a live field, an unknown verb, an argument that is not allowed.
            SpecError, AdmissionError: A value that is not allowed.
        """
        with self.lock:
            if self.reader is None or self.phase != "running":
                raise ControlError("no run goes on; start one first")
            request = self.session.ask(self.reader, changes, verb=verb, at_tick=at_tick, arguments=arguments)
            text = asked_text(self.experiment, request)
            asked = Asked(request.id, text, request.changes)
            self._asked.append(asked)
            return asked

    def stop(self, wait_s: float = 10.0) -> Status | None:
        """Stop the run after this tick, firmly if it does not; blocks until it has ended. None where there is no run."""
        with self.lock:
            reader = self.reader
        if reader is None:
            return None
        # A reader of its own: this call blocks, and must not hold up the thread that follows the run.
        return self.session.stop(RunReader(reader.run), wait_s=wait_s)

    def close(self) -> None:
        """End the pool of ranks."""
        self.session.close()

    # --- looking ------------------------------------------------------------------------------------------------
    def look(self, *, fresh: bool = False) -> Look:
        """Read what is new in the run and return a snapshot; the same one where nothing has changed.

        Args:
            fresh: Summarise the segments now, however recently that was done.
        """
        with self.lock:
            reader = self.reader
            if reader is None:
                return self._publish(phase=self.phase, spec=self.spec, guess=self.guess, note=self.note)
            news = reader.poll()
            look_at(reader)
            now = status(reader)
            if reader.run.incarnations() < self._expected:  # it was resumed, and its ranks have not written yet
                now = Status("starting", N_("resuming from the last checkpoint"), now.last_tick)
            ended = now.final and self.phase == "running"
            due = time.monotonic() - self._summary_s > max(SUMMARY_S, 10 * self._summary_cost_s)
            if ended:
                self.phase = "ended"
            if fresh or ended or (due and news) or not self._summary_s:
                self._summarise(reader)
            if ended and self._entry:
                self._settle(reader)
            self._answers(reader)
            found = Look(
                phase=self.phase, spec=reader.spec, status=now, run=reader.run.id, segments=self._look.segments,
                comparisons=self._look.comparisons, events=tuple(reader.events), asked=tuple(self._asked),
                latest={k: dict(v) for k, v in sorted(reader.latest().items())}, **_roll_call(reader),
                traceback=traceback_of(reader) if now.state == "failed" else "",
                can_resume=now.final and now.state != "done" and latest_checkpoint_tick(reader) is not None,
                guess=self.guess, note=self.note, prediction=self._look.prediction, refused=self._look.refused,
            )  # fmt: skip
            return self._publish(**{k: getattr(found, k) for k in Look.__dataclass_fields__ if k != "number"})

    def _publish(self, **changes: Any) -> Look:
        if any(getattr(self._look, k) != v for k, v in changes.items()):
            self._look = replace(self._look, number=self._look.number + 1, **changes)
        return self._look

    def _summarise(self, reader: RunReader) -> None:
        begun = time.monotonic()
        segments = reader.segments()
        comparisons = tuple(compare(self.experiment, s) for s in segments)
        self._look = replace(
            self._look, segments=tuple(segments), comparisons=comparisons, number=self._look.number + 1
        )
        self._summary_s = time.monotonic()
        self._summary_cost_s = self._summary_s - begun

    def _answers(self, reader: RunReader) -> None:
        self._asked = [a if a.answer else replace(a, answer=reader.answer(a.id)) for a in self._asked]

    def _settle(self, reader: RunReader) -> None:
        first = self._look.segments[0] if self._look.segments else None
        value = first.values.get(self.question) if first and not first.transient else None
        entry, self._entry = self._entry, ""
        try:
            ledger.settle(entry, reader.run.id, value.value if value else None)
        except LabError as error:
            self.note = str(error)

    def entry(self) -> str:
        """Return the ledger's entry that belongs to the run that is shown, or ""."""
        run = self.reader.run.id if self.reader else ""
        return self._entry or next((e["entry"] for e in ledger.read() if run and e["run"] == run), "")

    def open(self, name: str = "last") -> None:
        """Show a run that was made earlier; where it has a checkpoint and is not done, it can be resumed.

        Args:
            name: Its id, an ending of it, or "last".

        Raises:
            ControlError: A run goes on, or it is of another experiment.
            RunFormatError: There is no such run.
        """
        with self.lock:
            if self.phase == "running":
                raise ControlError("a run goes on; stop it first")
            reader = RunReader(find(name, self.session.runs))
            if reader.experiment.name != self.experiment.name:
                raise ControlError(f"run {reader.run.id} is of {reader.experiment.name!r}; open it with that lab")
            self._forget_run()
            self.reader, self.spec, self.phase, self.note = reader, reader.asked, "ended", ""

    def broken_run(self) -> str:
        """Return the id of the newest run where it is this experiment's, broke, and can be resumed; else ""."""
        try:
            reader = RunReader(find("last", self.session.runs))
            if reader.experiment.name == self.experiment.name:
                reader.poll()
                state, kept = status(reader).state, latest_checkpoint_tick(reader)
                return reader.run.id if state in {"interrupted", "failed"} and kept is not None else ""
        except (LabError, OSError):
            pass  # no run yet, or one that cannot be read: nothing to offer
        return ""

    def _recall(self) -> None:
        """Find the learner's prediction of a run that was taken over: the newest without an outcome, of the same setup."""
        spec = self.spec.model_dump()
        mine = [e for e in ledger.read() if e["run"] is None and e["lab"] == self.experiment.name and e["spec"] == spec]
        if mine:
            self._entry, self.guess = mine[-1]["entry"], mine[-1]["value"]

    def _forget_run(self) -> None:
        self.reader, self._asked, self._summary_s, self._expected = None, [], 0.0, 0
        self._look = Look(number=self._look.number + 1, spec=self.spec, guess=self.guess)


def _roll_call(reader: RunReader) -> dict[str, Any]:
    """Return which nodes were started, which are at work and which died, in the newest incarnation."""
    newest = reader.run.incarnations() - 1
    mine = [e for e in reader.events if e["incarnation"] == newest]
    started = sorted({int(e["by"]) for e in mine if e["kind"] == "started"})
    begun = [e for e in mine if e["kind"] == "segment"]
    lost = [n for e in mine if e["kind"] == "rank-lost" for n in e.get("lost", [])]
    return {
        "nodes": tuple(started),
        "members": tuple(begun[-1].get("members", ())) if begun else (),
        "lost": tuple(lost),
    }
