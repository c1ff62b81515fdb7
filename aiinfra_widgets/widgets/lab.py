"""`Lab("training")`: predict, run, change and compare, on one screen or in a script.

In a notebook the cell shows the screen and a thread follows the run. Headless (AIINFRA_HEADLESS=1, or no notebook at all)
there is no widget and no thread: `run`, `set`, `wait` do the same, and what is displayed are tables and offline figures.

What happens to a run when its kernel ends: the ranks never depend on the kernel. A run that goes on when a notebook's kernel
ends - killed, crashed, restarted or shut down; Python's exit handlers cannot tell these apart - has a grace of 60 s in
which a new kernel takes it over by making a Lab; then it is checkpointed and ended. So at exit the pool is closed only when
no run goes on (its ranks would idle for nothing), or headless, where nobody will come back.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..comparison import Comparison, compare
from ..errors import ControlError, SpecError, UnknownNameError, near
from ..launch.place import asked_for
from ..launch.pool import NOTEBOOK_GRACE_S
from ..launch.schedule import ask_all, parse_changes, room_for
from ..launch.session import Session
from ..quantities import quantity
from ..runs.reader import Segment
from ..runs.status import Status
from ..summary import FORMAT, summary
from ..texts import N_, told, tr
from .compare import comparison_html, detail_html, watched_html
from .curves import Sweeps
from .explain import explain
from .feed import Feed, Shown, Still
from .figures import still
from .follower import LOOK_S, Follower
from .meters import meters_table_html
from .notebook import headless, screen, show, show_figure, show_html
from .state import LabState, Look

if TYPE_CHECKING:
    import pandas as pd

#: The newest Lab of each experiment in this kernel; an older one stops following when its cell is run again.
_newest: weakref.WeakValueDictionary[str, Lab] = weakref.WeakValueDictionary()


class Lab:
    """A lab on one experiment.

    Args:
        name: Of the experiment; see `aiinfra doctor` for those there are.
        shown: Fields that are shown first, the others are folded; by default those of `values`.
        on: Where the ranks are to be: "slurm", "hosts", or "" for this machine.
        slurm, hosts: What is asked of that place: {"partition": "gpu", "time": "2h"}, {"file": "hosts.txt"}.
        values: Spec fields.

    Raises:
        UnknownNameError: No such experiment; near matches are named.
        SpecError: A value that is not allowed.
    """

    def __init__(
        self,
        name: str,
        /,
        shown: Sequence[str] = (),
        *,
        on: str = "",
        slurm: Mapping[str, Any] | None = None,
        hosts: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        self.headless = headless()
        place = asked_for(on, {"slurm": slurm or {}, "hosts": hosts or {}})
        session = Session(grace_s=0.0 if self.headless else NOTEBOOK_GRACE_S, place=place) if place else None
        self.state = LabState(name, values, watched=not self.headless, session=session)
        self._primary = list(shown) or list(values)
        self._screen: Any = None
        self._follower: Follower | None = None
        self._ended = threading.Event()
        self._sweeps: Sweeps | None = None
        if not self.headless:
            old = _newest.get(name)
            if old is not None:
                old._unfollow()
            _newest[name] = self
            if self.state.attach():
                self._follow()
            elif broken := self.state.broken_run():
                self.state.note = N_(
                    f"Your last run broke: {broken}. lab.open() shows it, and Resume goes on from its checkpoint."
                )
        atexit.register(_at_exit, weakref.ref(self))

    # --- what a person or a script does -------------------------------------------------------------------------
    def commit(self, value: float) -> None:
        """Commit to your prediction of the main quantity, in base units, before the model's; the ledger keeps it."""
        self.state.commit(value)
        self._redraw()

    def explain(self, text: str) -> None:
        """Say why your prediction and the measurement differ: kept in the ledger, where your latest words count."""
        explain(self.state, text)

    def run(self, changes: Iterable[str] = (), *, room: int | None = None, note: str = "") -> None:
        """Start the run and return at once; `wait` waits for its end.

        Args:
            changes: Written down beforehand: "step=300 nodes=2", "step=500 pause".
            room: Ranks to hold, so that the node count grows without a relaunch.
            note: Kept with the run.
        """
        spec, script = self.state.spec, []
        if texts := list(changes):
            script = parse_changes(self.state.experiment, spec, texts)
            room = room_for(spec, script, room)
        reader = self.state.run(room=room, note=note)
        self._ended.clear()
        self._follow()
        ask_all(self.state.session, reader, script)

    def set(self, **changes: Any) -> None:
        """Change live fields of the run that goes on: `lab.set(nodes=2)`. The answer is shown, and in `results()`."""
        self.state.ask(changes)

    def act(self, verb: str, /, **arguments: Any) -> None:
        """Do something to the run: `lab.act("checkpoint")`, "pause", "resume", or a verb of the experiment.

        Args:
            verb: What to do; the answer is shown, and in `results()`.
            arguments: Of the verb; those that are left out have their default.

        Raises:
            ControlError: No run goes on, no such verb, or an argument that is not allowed.
        """
        self.state.ask(verb=verb, arguments=arguments)

    def fault(self, kind: str = "kill", node: int = -1, **arguments: Any) -> None:
        """Break something in the run, for real: `lab.fault("kill", node=1)`, `lab.fault("stop", seconds=20)`.

        Args:
            kind: One of `aiinfra_widgets.faults.KINDS`, where each says what will happen.
            node: Number of the node; -1 is the last one at work.
            arguments: seconds, share, latency_s, size_bytes, where the kind looks at them.

        Raises:
            ControlError: No run goes on, or an argument that is not allowed.
        """
        self.state.ask(verb="fault", arguments={"kind": kind, "node": node, **arguments})

    def stop(self) -> Status | None:
        """Stop the run after this tick, and wait until it has ended; its status, or None where there is none."""
        now = self.state.stop()
        self._redraw()
        return now

    def open(self, name: str = "last") -> None:
        """Show a run that was made earlier, by its id or an ending of it; `resume` goes on from its checkpoint."""
        self.state.open(name)
        self._redraw()

    def resume(self) -> None:
        """Go on from the last checkpoint of a run that was stopped or broke."""
        self.state.resume()
        self._ended.clear()
        self._follow()

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until the run has ended and return its status; Interrupt the cell to stop waiting, not the run.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            ControlError: Nothing was started.
            TimeoutError: It still goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            look = self.state.look()
            if look.status is None:
                raise ControlError("nothing was started; call lab.run() first")
            if look.status.final and look.phase == "ended":
                self._redraw()
                return look.status
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"the run is {look.status.state} after {timeout:g} s: {look.status.message}")
            self._ended.wait(LOOK_S / 2)

    def close(self) -> None:
        """End the ranks and stop following; what was measured is kept."""
        self._unfollow()
        self.state.close()

    # --- what it knows ------------------------------------------------------------------------------------------
    def segments(self) -> list[Segment]:
        """Return the segments so far, each with what was predicted and what was measured."""
        return list(self.state.look(fresh=True).segments)

    def comparison(self) -> list[Comparison]:
        """Return predicted against measured, by segment."""
        return [compare(self.state.experiment, s) for s in self.segments()]

    def predicted(self, field: str, values: Iterable[Any] | None = None) -> pd.DataFrame:
        """Return what the model says of the setup for each value of one field: a row for each, in base units.

        Args:
            field: Of the Spec.
            values: To try; every choice of the field if not given.

        Raises:
            SpecError: No such field, or a value that is not allowed.
            ModelInputError: The model has nothing to say of it.
        """
        import pandas as pd

        exp, spec, machine = self.state.experiment, self.state.spec, self.state.session.machine
        if field not in spec.knobs():
            raise SpecError(f"{field}: no such field; {near(field, spec.knobs())}")
        tried = list(spec.knobs()[field].choices if values is None else values)
        rows = [exp.predict(spec.changed({field: value}, live_only=False), machine) for value in tried]
        columns = [n for n in exp.compared if any(n in r.values for r in rows)]
        return pd.DataFrame(
            [[r.get(n) for n in columns] for r in rows], index=pd.Index(tried, name=field), columns=columns
        )

    def results(self) -> dict[str, Any]:
        """Return the run as `aiinfra run --json` prints it, with the learner's own prediction; plain JSON types."""
        with self.state.lock:
            reader, guess = self.state.reader, self.state.guess
            if reader is None:
                return {
                    "format": FORMAT, "run": None, "status": "not started", "message": "press Run, or call lab.run()",
                    "experiment": self.state.experiment.name, "segments": [], "events": [],
                }  # fmt: skip
            return {**summary(reader), "guess": {"quantity": self.state.question, "value": guess}}

    @property
    def figures(self) -> tuple[str, ...]:
        """Names for `figure`."""
        return Shown(self.state.experiment).names

    def figure(self, name: str) -> Any:
        """Return one figure of the run as it is now: a Bokeh figure that does not move.

        Args:
            name: One of `figures`.

        Raises:
            UnknownNameError: No such figure.
        """
        return self._figure_now(name)[0]

    # --- display ------------------------------------------------------------------------------------------------
    def show(self, what: str = "comparison", *also: str) -> None:
        """Display a part by itself, in a cell of its own: "comparison", or the name of a figure.

        In a notebook the comparison keeps following the run; a figure shows the run as it is now.

        Args:
            what: Which part.
            also: Names of further quantities, for the comparison: a column for each.

        Raises:
            UnknownNameError: No such figure or quantity.
        """
        names = tuple(quantity(name).name for name in also)
        if what != "comparison":
            show_figure(*self._figure_now(what))
        elif self.headless:
            self._show_comparison(names)
        else:
            self._the_screen().watching = names
            self._redraw()
            show(self._the_screen().comparison)

    def _ipython_display_(self) -> None:
        if self.headless:
            self._show_run()
        else:
            show(self._the_screen().root)

    def _repr_html_(self) -> str | None:
        return None

    def __repr__(self) -> str:
        look = self.state.look()
        return f"Lab({self.state.experiment.name!r}): {look.status.state if look.status else 'not started'}"

    def _show_run(self) -> None:
        look = self.state.look(fresh=True)
        exp = self.state.experiment
        if look.status is None:
            print(f"{tr(exp.title)}: {tr('not started')}")
            return
        print(f"{tr(exp.title)}: {tr(look.status.state)} - {told(look.status.message)}")
        if look.traceback:
            print(look.traceback)
        for name in Shown(exp).live:
            show_figure(*self._figure_now(name))

    def _show_comparison(self, also: Sequence[str]) -> None:
        look, exp = self.state.look(fresh=True), self.state.experiment
        found = look.comparisons
        show_html(comparison_html(exp, found, look.guess) + watched_html(exp, found, also) + detail_html(exp, found))
        for name in Shown(exp).compared:
            show_figure(*self._figure_now(name))
        show_html(meters_table_html(look.segments))

    def _figure_now(self, name: str) -> tuple[Any, str]:
        """Return a figure of the run as it is now, and what it shows in words."""
        if name not in self.figures:
            raise UnknownNameError(f"no figure {name!r}; {near(name, self.figures)}")
        with self.state.lock:
            look, reader = self.state.look(fresh=True), self.state.reader
            first = look.segments[0] if look.segments else None
            values = first.values if first else {}
            typical = {k: v.value for k, v in values.items() if v.value is not None}
            shown = Shown(self.state.experiment, typical, first.prediction if first else None)
            found = Still()
            if reader is not None:
                self._sweeps = self._sweeps or Sweeps(self.state.experiment, reader.machine, wait=True)
                Feed(shown, found, reader.machine, self._sweeps).pull(reader, look)
        chart = shown.chart(name, found.data.get(name))
        return still(chart), found.words.get(name, chart.label)

    # --- the screen ---------------------------------------------------------------------------------------------
    def _the_screen(self) -> Any:
        if self._screen is None:
            actions = {
                "commit": lambda: self.commit(self._the_screen().read_guess()), "run": self.run, "pause": self._pause,
                "checkpoint": lambda: self.act("checkpoint"), "stop": self._stop_beside, "resume": self.resume,
                "again": self.state.start_over,
            }  # fmt: skip
            self._screen = screen(self.state, self._primary, actions)
            self._redraw()
        return self._screen

    def _pause(self) -> None:
        self.act("resume" if self.state.look().paused else "pause")

    def _stop_beside(self) -> None:
        # Up to ten seconds when a rank does not listen: not in the thread that answers the other controls.
        threading.Thread(target=self.stop, daemon=True, name="aiinfra-stop").start()

    def _redraw(self) -> None:
        if self._screen is not None:
            self._update(self.state.look())

    def _update(self, look: Look) -> None:
        """Draw a look; also called from the following thread."""
        if self._screen is None:
            return
        reader = self.state.reader
        with self._screen.batch():
            if reader is not None:
                with self.state.lock:
                    self._screen.feed.follow(reader, look)
        self._screen.draw(look)

    def _follow(self) -> None:
        if not self.headless and (self._follower is None or not self._follower.is_alive()):
            self._follower = Follower(self)
            self._follower.start()

    def _unfollow(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None


def _at_exit(of: weakref.ref[Lab]) -> None:
    """See the module's text."""
    lab = of()
    if lab is None:
        return
    lab._unfollow()
    pool = lab.state.session.pool
    if pool is not None and (lab.headless or not lab.state.look().going):
        pool.close(wait_s=8.0 if lab.headless else 0.0)


def labs() -> Sequence[Lab]:
    """Return the labs that are shown in this kernel."""
    return list(_newest.values())
