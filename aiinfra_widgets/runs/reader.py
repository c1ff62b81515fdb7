"""Reading a run while it grows: tail the files, merge nodes into ticks, cut ticks into segments.

Nothing here writes, and a torn last line is left for the next look. The live view, the report, the data frame, the
command line and the tests all read through this one class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnknownNameError, near
from ..experiment import Experiment, Observed, Spec, experiment
from ..machine.profile import Machine
from ..quantities import QUANTITIES, Prediction, Value
from .alive import Ages
from .columns import Columns, combined, joined, length, parse, picked
from .growing import Growing
from .layout import RunDir, incarnation_of
from .writer import HEAD, RECORD_HEAD

if TYPE_CHECKING:
    import pandas as pd

Event = dict[str, Any]
#: What tells one tick from another, also where it was done twice.
_TICK = ("incarnation", "segment", "tick")


@dataclass
class Segment:
    """A stretch of a run in which the configuration does not change: the unit of comparison.

    Attributes:
        index: In the run, over all incarnations.
        first_tick: The first tick under this configuration.
        spec: The whole Spec.
        cause: What began it: "start", "resume", a request id, "rank-lost".
        t_s: Monotonic time of the beginning.
        machine: The profile kept with the run.
        ticks: Ticks seen so far.
        elapsed_s: From the first to the last tick end.
        values: Measured quantities; medians with quartiles after `settle_ticks`.
        transient: Too short to be compared.
        prediction: Made before it began, or None with `refused` saying why.
    """

    index: int
    first_tick: int
    spec: Spec
    cause: str
    t_s: float
    machine: Machine
    ticks: int = 0
    elapsed_s: float = 0.0
    values: dict[str, Value] = field(default_factory=dict)
    transient: bool = True
    prediction: Prediction | None = None
    refused: str = ""


class Tail:
    """Complete lines of one growing file, each returned once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def lines(self) -> bytes:
        """Return what was appended since the last call, up to the last whole line."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return b""
        end = data.rfind(b"\n") + 1
        self._at += end
        return data[:end]

    def so_far(self) -> bytes:
        """Return everything that `lines` has returned."""
        try:
            with self.path.open("rb") as file:
                return file.read(self._at)
        except FileNotFoundError:
            return b""


class RunReader:
    """A run as data. Call `poll()` and then look; every view of the same run may have its own reader."""

    def __init__(self, run: RunDir | Path | str) -> None:
        self.run = run if isinstance(run, RunDir) else RunDir(Path(run))
        self.manifest = self.run.read_manifest()
        self.events: list[Event] = []
        self.ages = Ages()
        self._tails: dict[Path, Tail] = {}
        self._columns: dict[Path, list[str]] = {}
        self._pending: Columns = {}
        self._latest: dict[int, dict[str, float]] = {}
        self._ticks = Growing(("incarnation", *HEAD))
        self._records: dict[str, Growing] = {}
        self._kept: dict[int, tuple[Any, dict[str, Value]]] = {}

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment of this run."""
        return experiment(self.manifest["experiment"])

    @cached_property
    def machine(self) -> Machine:
        """The machine profile kept with the run."""
        return self.run.read_machine()

    @cached_property
    def asked(self) -> Spec:
        """The Spec the run began with."""
        return self.run.read_spec()

    def poll(self) -> bool:
        """Read what is new; return whether anything was."""
        fresh = self.poll_events()
        fresh = self._poll_records() or fresh
        return self._poll_samples() or fresh

    # --- events -------------------------------------------------------------------------------------------------
    def poll_events(self) -> bool:
        """Read new events only; return whether there were any."""
        new: list[Event] = []
        for path in self._files("events", ".jsonl"):
            incarnation = incarnation_of(path)
            for line in self._tail(path).splitlines():
                try:
                    event = {"incarnation": incarnation, **json.loads(line)}
                except (ValueError, TypeError):
                    continue  # a line that was torn by a crash and then continued by nobody
                if {"kind", "by", "t_s"} <= event.keys():
                    new.append(event)
        if new:
            self.events = sorted(self.events + new, key=lambda e: (e["incarnation"], e["t_s"]))
        return bool(new)

    def kind(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds, oldest first."""
        return [e for e in self.events if e["kind"] in kinds]

    def answer(self, request_id: str) -> Event | None:
        """Return the controller's decision on a request, or None while there is none."""
        return next((e for e in self.kind("applied", "refused") if e.get("request") == request_id), None)

    @property
    def spec(self) -> Spec:
        """The Spec now: of the last segment, or as asked; while ranks are relaunched, with as many nodes as are to come."""
        begun, told = self.kind("segment"), self.kind("segment", "end")
        if not begun:
            return self.asked
        relaunch = {"nodes": told[-1]["nodes"]} if told[-1].get("state") == "relaunch" else {}
        return self.experiment.spec.make({**begun[-1]["spec"], **relaunch})

    # --- samples ------------------------------------------------------------------------------------------------
    def _poll_samples(self) -> bool:
        blocks = []
        for path in self._of_nodes("samples", ".csv"):
            if block := self._fresh_rows(path, HEAD, "node"):
                blocks.append(block)
                self._latest[int(block["node"][0])] = {name: float(column[-1]) for name, column in block.items()}
        if not blocks:
            return False
        self._merge(joined(blocks))
        return True

    def _fresh_rows(self, path: Path, head: tuple[str, ...], whose: str) -> Columns:
        """Return what was appended to a file of samples or records since the last look, with its incarnation and node; {} is nothing."""
        data = self._tail(path)
        if data and path not in self._columns:
            first, _, data = data.partition(b"\n")
            self._columns[path] = first.decode().split(",")
        return _of_writer(path, parse(data, self._columns[path], head), whose) if data else {}

    # --- records ------------------------------------------------------------------------------------------------
    def _poll_records(self) -> bool:
        fresh = False
        for table, columns in self.experiment.records.items():
            for path in self._of_nodes("records", f"-{table}.csv"):
                if block := self._fresh_rows(path, RECORD_HEAD, "writer"):
                    whole = ("incarnation", "writer", *RECORD_HEAD, *columns)
                    self._records.setdefault(table, Growing(whole)).append(block)
                    fresh = True
        return fresh

    def records(self, table: str) -> pd.DataFrame:
        """Return every row of one record of the experiment, in the order in which they were read, with the node that wrote it.

        Raises:
            UnknownNameError: The experiment declares no such record.
        """
        declared = self.experiment.records
        if table not in declared:
            raise UnknownNameError(f"{self.experiment.name} has no record {table!r}; {near(table, declared)}")
        return self._records.get(table, Growing(("incarnation", "writer", *RECORD_HEAD, *declared[table]))).frame()

    def _merge(self, fresh: Columns) -> None:
        """Combine the rows of all nodes of a tick, once every node of that tick has reported."""
        rows = joined([self._pending, fresh]) if self._pending else fresh
        # A tick that was done again belongs to the later incarnation after a resume, to the later segment after a death.
        keys = np.stack([rows[name] for name in _TICK])
        _, group, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
        whole = counts[group.ravel()] >= rows["nodes"]
        self._pending = picked(rows, ~whole)
        if whole.any():
            ways = {name: _combine(name) for name in rows if name not in {"node", *_TICK}}
            self._ticks.append(combined(picked(rows, whole), _TICK, ways))

    @property
    def nodes(self) -> pd.DataFrame:
        """Every sample: one row per incarnation, node and tick. Empty fields are NaN: not measured.

        Read anew, as far as was looked so far: what follows a run for hours does not keep each node's samples in memory.
        """
        table = Growing(("incarnation", "node", *HEAD))
        for path in self._of_nodes("samples", ".csv"):
            first, _, data = self._tails[path].so_far().partition(b"\n") if path in self._tails else (b"", b"", b"")
            if data and (block := _of_writer(path, parse(data, first.decode().split(","), HEAD), "node")):
                table.append(block)
        return table.frame()

    @property
    def ticks(self) -> pd.DataFrame:
        """One row per tick over all its nodes: the slowest, the mean or the sum, as the vocabulary says."""
        return self._ticks.frame()

    def latest(self) -> dict[int, dict[str, float]]:
        """Return the newest sample of each node."""
        return self._latest

    # --- segments -----------------------------------------------------------------------------------------------
    def segments(self) -> list[Segment]:
        """Return every segment with what was measured and what was predicted for it."""
        begun = self.kind("segment")
        ticks = self.ticks
        found: list[Segment] = []
        for i, event in enumerate(begun):
            spec = self.experiment.spec.make(event["spec"])
            segment = Segment(event["segment"], event["tick"], spec, event.get("cause", ""), event["t_s"], self.machine)
            rows = ticks[(ticks["segment"] == segment.index) & (ticks["incarnation"] == event["incarnation"])]
            self._measure(segment, rows)
            if i + 1 == len(begun):
                segment.transient = len(rows) < self.experiment.settle_ticks + self.experiment.min_ticks
            self._attach_prediction(segment)
            found.append(segment)
        return found

    def _measure(self, segment: Segment, rows: pd.DataFrame) -> None:
        exp = self.experiment
        segment.ticks = len(rows)
        segment.transient = len(rows) < exp.settle_ticks + exp.min_ticks
        if rows.empty:
            return
        times = rows["t_s"].to_numpy()
        segment.elapsed_s = max(float(times[-1] - segment.t_s), 0.0)  # a damaged line may tell any time
        steady = rows.iloc[exp.settle_ticks :] if len(rows) > exp.settle_ticks else rows
        for name in rows.columns:
            if name in QUANTITIES:
                segment.values[name] = _summary(name, steady[name].to_numpy(dtype=float))
        if exp.records:
            settled = min(exp.settle_ticks, len(rows)) - 1
            steady_s = float(times[settled]) if settled >= 0 else segment.t_s
            segment.values.update(self._distilled(segment, steady_s, steady))
        self._count_energy(segment)
        segment.values.update(exp.derive(segment.spec, self.machine, segment.values, segment.elapsed_s))

    def _distilled(self, segment: Segment, steady_s: float, steady: pd.DataFrame) -> dict[str, Value]:
        """What the records of a segment tell; kept, for it costs a look at all of them, until there are more."""
        run = {t: self.records(t) for t in self.experiment.records}
        mine = {t: rows[rows["segment"].to_numpy() == segment.index] for t, rows in run.items()}
        key = (segment.ticks, *(len(rows) for rows in mine.values()), *(len(rows) for rows in run.values()))
        if self._kept.get(segment.index, (None,))[0] != key:
            seen = Observed(segment.t_s, steady_s, segment.t_s + segment.elapsed_s, steady, mine, run)
            self._kept[segment.index] = (key, self.experiment.distil(segment.spec, self.machine, seen))
        return self._kept[segment.index][1]

    def _count_energy(self, segment: Segment) -> None:
        """Energy of a segment by its host's counter, between the readings at its boundaries; nothing without a counter."""
        readings = [e for e in self.kind("energy") if e["energy_j"] is not None]
        end_s = segment.t_s + segment.elapsed_s
        inside = [e for e in readings if segment.t_s - 0.5 <= e["t_s"] <= end_s + 0.5]
        if len(inside) < 2 or inside[-1]["t_s"] <= inside[0]["t_s"]:
            return
        joule = float(np.interp(end_s, *_curve(inside)) - np.interp(segment.t_s, *_curve(inside)))
        how = inside[-1].get("how") or "energy counter of this host"
        segment.values["energy_j"] = Value("energy_j", joule, method="measured", how=how, n=len(inside))

    def _attach_prediction(self, segment: Segment) -> None:
        path = self.run.prediction(segment.spec.digest())
        try:
            record = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            segment.refused = "nobody predicted this configuration before it began"
            return
        if "prediction" in record:
            segment.prediction = Prediction.from_json(record["prediction"])
        segment.refused = record.get("refused", "")

    def _files(self, folder: str, ending: str) -> list[Path]:
        """Files of the form INCARNATION-WRITER, oldest incarnation first; what else lies there is not ours."""
        found = [p for p in (self.run.path / folder).glob(f"*-*{ending}") if incarnation_of(p) >= 0]
        return sorted(found, key=lambda p: (incarnation_of(p), p.name))

    def _of_nodes(self, folder: str, ending: str) -> list[Path]:
        """Those that a node wrote; a companion, which goes by its name, is no part of a tick."""
        return [p for p in self._files(folder, ending) if p.stem.split("-")[1].isdecimal()]

    def _tail(self, path: Path) -> bytes:
        return self._tails.setdefault(path, Tail(path)).lines()


def _of_writer(path: Path, block: Columns, whose: str) -> Columns:
    """Return rows of a file with its incarnation and its writer's number; {} where there are none."""
    if not (many := length(block)):
        return {}
    incarnation, who = (float(x) for x in path.stem.split("-")[:2])
    return {"incarnation": np.full(many, incarnation), whose: np.full(many, who), **block}


def _combine(column: str) -> str:
    if column in {"t_s", "nodes"}:
        return "max"
    way = QUANTITIES[column].combine if column in QUANTITIES else "mean"
    return way if way in {"max", "sum", "first"} else "mean"


def _curve(readings: list[Event]) -> tuple[list[float], list[float]]:
    return [e["t_s"] for e in readings], [e["energy_j"] for e in readings]


def _summary(name: str, values: np.ndarray[Any, Any]) -> Value:
    values = values[np.isfinite(values)]
    if not values.size:
        return Value(name, None, method="measured", how="no counter", n=0)
    q25, median, q75 = (float(q) for q in np.percentile(values, (25, 50, 75)))
    if name in QUANTITIES and (q := QUANTITIES[name]).unit == "B" and q.combine == "sum":
        # What is sent now and then only (averages of replicas) has a median of nothing.
        return Value(name, float(values.mean()), q25, q75, "measured", f"mean of {values.size}", int(values.size))
    return Value(name, median, q25, q75, "measured", f"median of {values.size}", int(values.size))


def last_ticks(reader: RunReader) -> dict[int, int]:
    """Return the last tick that each node reported."""
    return {node: int(row["tick"]) for node, row in reader.latest().items()}


def last_segment(run: RunDir) -> int:
    """Return the highest segment index that was begun in `run`, -1 for none; a next one never uses an index twice."""
    reader = RunReader(run)
    reader.poll_events()
    return max((int(e["segment"]) for e in reader.kind("segment")), default=-1)
