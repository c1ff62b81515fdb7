"""Curves over a swept field: what the model says, what segments measured, and an axis on which both can be read."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.experiment import Curve, Experiment
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Value
from aiinfra_widgets.widgets import curves
from aiinfra_widgets.widgets.curves import Sweep, Sweeps, columns, plots
from aiinfra_widgets.widgets.feed import Feed, Shown, Still
from aiinfra_widgets.widgets.figures import Axis
from aiinfra_widgets.widgets.state import Look

MACHINE = Machine("test-1", "2026-01-01", 2, 8 * 2**30)
MS, PER_S = Axis(1e3, "ms"), Axis(1.0, "1/s")


def point(spec: Any, at: float, measured: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {
        "at": at,
        "measured": measured,
        "low": low,
        "high": high,
        "segment": 0,
        "spec": spec.changed({"errands_per_s": at}),
    }


def sweep(values: list[float], **more: Any) -> Sweep:
    array = np.array(values)
    return Sweep(np.arange(1.0, 1 + len(array)), array, more.pop("low", array), more.pop("high", array), **more)


def test_an_experiment_may_have_several_curves(errands: Experiment) -> None:
    assert list(plots(errands)) == ["errand_response_s_over_errands_per_s", "speedup", "efficiency_frac"]
    two = type("Two", (), {"curves": (Curve("nodes", "a", relative=True), Curve("nodes", "b", relative=True))})()
    assert list(plots(two)) == [
        "speedup",
        "efficiency_frac",
        "speedup_of_b_over_nodes",
        "efficiency_frac_of_b_over_nodes",
    ]


def test_a_model_that_goes_to_infinity_leaves_the_figure_and_the_points_stay_readable(errands: Experiment) -> None:
    plot = plots(errands)["errand_response_s_over_errands_per_s"]
    spec = errands.spec.make({"nodes": 2})
    load = np.linspace(0.1, 9.9, 99)
    with np.errstate(divide="ignore"):
        model = np.where(load < 5, 0.2 / np.maximum(1 - load / 5, 1e-9), np.inf)
    found = columns(plot, Sweep(load, model, 0.8 * model, 1.2 * model), [point(spec, 4.0, 0.9, 0.8, 1.1)], PER_S, MS)
    top = found["span"]["end"]
    assert 1100 < top < 5000, "the highest whisker is seen, and it is not a line at the bottom"
    value = found["model"]["value"]
    assert np.isnan(value[load >= 5]).all()
    assert np.isfinite(value[load < 5]).all()
    assert np.isnan(found["model"]["high"][load >= 5]).all()
    assert not any(np.isinf(np.asarray(c, float)).any() for c in (found["model"]["high"], found["references"]["value"]))


def test_a_band_without_an_upper_end_leaves_through_the_top(errands: Experiment) -> None:
    plot = plots(errands)["errand_response_s_over_errands_per_s"]
    found = columns(plot, sweep([1.0, 2.0, 3.0], high=np.array([1.5, 3.0, np.inf])), [], PER_S, MS)
    assert found["model"]["high"][2] > found["span"]["end"]


def test_a_plain_rising_curve_is_shown_whole(errands: Experiment) -> None:
    plot = plots(errands)["errand_response_s_over_errands_per_s"]
    found = columns(plot, sweep([0.1 * i for i in range(1, 20)]), [], PER_S, MS)
    assert found["span"]["end"] > 1900
    assert columns(plot, None, [], PER_S, MS)["span"]["end"] > 0, "nothing known yet"


def test_points_are_in_the_axes_units_with_their_spread(errands: Experiment) -> None:
    plot = plots(errands)["errand_response_s_over_errands_per_s"]
    spec = errands.spec.make({})
    other = point(errands.spec.make({"nodes": 3}), 4.0, 0.2)
    every = columns(plot, None, [point(spec, 4.0, 0.5, 0.4, 0.7), point(spec, 2.0, 0.3)], PER_S, MS, [other])
    found = every["points"]
    assert found["value"].tolist() == pytest.approx([500.0, 300.0])
    assert found["low"].tolist() == pytest.approx([400.0, 300.0])
    assert found["high"].tolist() == pytest.approx([700.0, 300.0])
    assert found["text"][0].startswith("segment 0, Load 4/s")
    assert every["others"]["value"].tolist() == pytest.approx([200.0]), "what another setup showed stays, faint"
    assert "3 carriers" in every["others"]["text"][0]
    assert curves.words(plot, [point(spec, 4.0, 0.5)], "1/s") == "Response time: measured 500 ms at 4/s"
    assert "nothing measured" in curves.words(plot, [], "1/s")


def test_speedup_is_relative_to_one_node_that_was_measured_else_to_the_model(errands: Experiment) -> None:
    speedup, efficiency = plots(errands)["speedup"], plots(errands)["efficiency_frac"]
    spec, nodes = errands.spec.make({}), Axis(1.0, "")

    def at(n: int, measured: float) -> dict[str, Any]:
        return {
            "at": n,
            "measured": measured,
            "low": None,
            "high": None,
            "segment": 0,
            "spec": spec.changed({"nodes": n}),
        }

    model = sweep([2.0, 3.6, 4.5])
    alone = columns(speedup, model, [at(2, 3.0)], nodes, Axis(1.0, "x"))
    assert alone["points"]["value"].tolist() == pytest.approx([1.5])
    assert alone["model"]["value"].tolist() == pytest.approx([1.0, 1.8, 2.25])
    both = columns(speedup, model, [at(1, 1.5), at(2, 3.0)], nodes, Axis(1.0, "x"))
    assert both["points"]["value"].tolist() == pytest.approx([1.0, 2.0])
    share = columns(efficiency, model, [at(2, 3.0)], nodes, Axis(100.0, "%"))
    assert share["points"]["value"].tolist() == pytest.approx([75.0])
    assert share["span"]["end"] == pytest.approx(110)
    nobody = columns(speedup, None, [at(2, 3.0)], nodes, Axis(1.0, "x"))
    assert len(nobody["points"]["at"]) == 0, "relative to nothing"


def test_reference_curves_are_named_where_they_are_still_seen(errands: Experiment) -> None:
    plot = plots(errands)["errand_response_s_over_errands_per_s"]
    lines = {"flat": np.full(5, 1.0), "steep": np.array([1.0, 2.0, 4.0, 40.0, np.inf])}
    found = columns(plot, sweep([1.0, 1.2, 1.5, 2.0, 3.0], references=lines), [], PER_S, Axis(1.0, "s"))
    names, top = found["reference_names"], found["span"]["end"]
    assert names["text"] == ["flat", "steep"]
    assert (names["value"] < top).all()
    assert names["at"][0] == 5
    assert names["at"][1] < 5
    falling = {"falling": np.array([9.0, 5.0, 1.0, 0.5, 0.3])}
    name = columns(plot, sweep([1.0] * 5, references=falling), [], PER_S, Axis(1.0, "s"))["reference_names"]
    assert (name["at"].tolist(), name["align"]) == ([3.0], ["left"]), "named where it comes in"
    gaps = np.isnan(found["references"]["value"])
    assert gaps.sum() == 3, "one between two curves, one at the end, and one for infinity"


def test_a_sweep_is_done_once_and_again_for_another_setup(errands: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    real = type(errands).predict
    monkeypatch.setattr(type(errands), "predict", lambda self, *a, **k: (done.append(1), real(self, *a, **k))[1])
    monkeypatch.setattr(type(errands), "reference_curves", lambda *_: {})
    sweeps, curve, spec = Sweeps(errands, MACHINE, wait=True), errands.curves[0], errands.spec.make({"nodes": 2})
    first = sweeps.get(curve, spec)
    assert sweeps.get(curve, spec) is first
    assert len(done) == 1
    sweeps.get(curve, spec.changed({"nodes": 3}))
    assert len(done) == 2
    assert len(errands.sweep(spec, MACHINE, errands.curves[1])) == 4
    sweeps.get(errands.curves[1], spec)
    sweeps.get(errands.curves[1], spec.changed({"nodes": 3}))
    assert len(done) == 3, "the swept field itself makes no other sweep"


def test_a_long_sweep_is_done_beside_and_only_the_newest_is(
    errands: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    asked: list[int] = []
    real = type(errands).predict

    def slow(self: Any, spec: Any, machine: Any, **over: Any) -> Any:
        asked.append(spec.nodes)
        begun.set()
        assert go.wait(20)
        return real(self, spec, machine, **over)

    monkeypatch.setattr(type(errands), "predict", slow)
    monkeypatch.setattr(type(errands), "reference_curves", lambda *_: {})
    sweeps, curve, spec = Sweeps(errands, MACHINE, wait=False), errands.curves[0], errands.spec.make({})
    assert sweeps.get(curve, spec) is None
    assert begun.wait(20)
    for nodes in (2, 3, 4):
        assert sweeps.get(curve, spec.changed({"nodes": nodes})) is None
    assert sweeps.pending
    go.set()
    assert sweeps._thread is not None
    sweeps._thread.join(20)
    assert asked == [1, 4], "those that nobody waits for any more are left out"
    assert not sweeps.pending
    assert sweeps.get(curve, spec.changed({"nodes": 4})) is not None
    assert sweeps.done == 2


def test_another_machine_makes_other_sweeps(errands: Experiment) -> None:
    sweeps, curve, spec = Sweeps(errands, MACHINE, wait=True), errands.curves[0], errands.spec.make({})
    first = sweeps.get(curve, spec)
    sweeps.use(MACHINE)
    assert sweeps.get(curve, spec) is first
    sweeps.use(Machine("test-2", "2026-01-01", 4, 8 * 2**30))
    assert sweeps.get(curve, spec) is not first


def test_a_model_that_refuses_leaves_the_points(errands: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelInputError("not calibrated")

    monkeypatch.setattr(type(errands), "predict", refuse)
    found = Sweeps(errands, MACHINE, wait=True).get(errands.curves[0], errands.spec.make({}))
    assert found is not None
    assert found.value is None
    assert found.references == {}


def test_only_segments_that_differ_in_the_swept_field_are_drawn(carried: Any) -> None:
    carried.segment()
    carried.watch(30)
    carried.segment(errands_per_s=3.0)
    carried.watch(30)
    carried.segment(errand_s=0.1)
    carried.watch(30)
    segments = carried.reader().segments()
    for s in segments:
        s.values["errand_response_s"] = Value("errand_response_s", 0.5, method="measured")
    shown, still = Shown(carried.exp, {"errand_response_s": 0.5}), Still()
    feed = Feed(shown, still, MACHINE)
    feed.pull(carried.reader(), Look(spec=segments[1].spec, segments=segments))
    name = "errand_response_s_over_errands_per_s"
    assert sorted(still.data[name]["points"]["at"]) == [3.0, 4.0]
    assert still.data[name]["model"]["at"].max() >= 4.0, "the model reaches every point"
    figure = shown.chart(name, still.data[name]).figure
    assert figure.xaxis[0].axis_label == "Load (1/s)"
    assert figure.yaxis[0].axis_label == "ms"
    assert figure.y_range.end == still.data[name]["span"]["end"]
