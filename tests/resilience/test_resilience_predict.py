"""The prediction: the Spec's bad inputs, limits that are known, sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError, SpecError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.experiments.resilience.predict import young_goodput
from aiinfra_widgets.experiments.resilience.spec import ResilienceSpec
from aiinfra_widgets.experiments.resilience.vocabulary import SHARES
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.models.reliability import goodput_in_place


def predict(over: dict[str, Any] | None = None, **values: Any) -> Any:
    return experiment("resilience").predict(ResilienceSpec.make(values), found(), **(over or {}))


def test_shares_add_up_and_lie_in_their_bands() -> None:
    told = predict()
    assert sum(told[s] for s in SHARES) == pytest.approx(1)
    for name in SHARES:
        value = told.values[name]
        assert 0 <= value.low <= value.value <= value.high <= 1


def test_no_interval_of_a_sweep_beats_the_predicted_optimum() -> None:
    best_s = predict()["optimal_interval_s"]
    over = np.append(np.geomspace(best_s / 20, best_s * 20, 101), best_s)
    goodput = predict({"interval_s": over})["training_goodput_frac"]
    assert goodput.shape == over.shape
    assert goodput[-1] >= goodput.max()


def test_youngs_curve_is_the_limit_of_rare_failures() -> None:
    spec = ResilienceSpec.make({"mtbf_s": 1e6, "interval_s": 100.0, "checkpoint_cost_s": 0.1})
    exact = experiment("resilience").predict(spec, found(), interval_s=np.array([100.0]))["training_goodput_frac"]
    assert young_goodput(spec, [100.0]) == pytest.approx(exact, abs=1e-5)


def test_more_nodes_fail_more_often() -> None:
    goodput = predict({"nodes": np.array([1, 2, 4, 8])})["training_goodput_frac"]
    assert np.all(np.diff(goodput) < 0)


def test_in_place_beats_restart_and_one_node_has_no_survivor() -> None:
    again, on = predict(recovery="restart"), predict(recovery="in-place")
    assert on["training_goodput_frac"] > again["training_goodput_frac"]
    assert on["lost_frac"] == 0
    alone = predict(recovery="in-place", nodes=1)
    assert alone["training_goodput_frac"] == predict(recovery="restart", nodes=1)["training_goodput_frac"]
    assert any("nobody survives" in note for note in alone.notes)


def test_in_place_by_hand() -> None:
    # Once in 10 s: each failure stops work for 1 s unnoticed; nothing else costs. Of 11 s, 10 are work.
    assert goodput_in_place(1.0, 0.0, 10.0, 0.0, 1.0).training_goodput_frac == pytest.approx(10 / 11)
    # 1 s of work, 0.25 s of checkpoint: four fifths of what is left.
    assert goodput_in_place(1.0, 0.25, 10.0, 0.0, 1.0).training_goodput_frac == pytest.approx(0.8 * 10 / 11)
    told = goodput_in_place(1.0, 0.25, 10.0, 2.0, 1.0)
    shares = (told.training_goodput_frac, told.checkpoint_frac, told.lost_frac, told.restart_frac, told.detection_frac)
    assert sum(shares) == pytest.approx(1)
    assert goodput_in_place(1.0, 0.0, np.inf).training_goodput_frac == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mtbf_s": 0}, "mtbf_s: got 0"),
        ({"interval_s": float("nan")}, "interval_s: got nan"),
        ({"recovery": "restar"}, "did you mean 'restart'"),
        ({"nodes": 64, "global_batch": 32}, "some would have no sample"),
        ({"checkpoint_cost_s": -1}, "checkpoint_cost_s: got -1"),
        ({"checkpoint_every_s": 1}, "no such field"),
    ],
)
def test_bad_input_is_told(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        ResilienceSpec.make(values)


def test_what_cannot_be_swept_is_told() -> None:
    with pytest.raises(ModelInputError, match="cannot sweep workload"):
        predict({"workload": ["digits-cnn"]})
