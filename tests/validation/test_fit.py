"""The fit: it finds parameters that made the data, and the shipped parameters are its result on the shipped rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiinfra_widgets.models.transformer import PARAMETERS, Parameters
from aiinfra_widgets.validation.baselines import baselines
from aiinfra_widgets.validation.fit import fit, leave_one_source_out, source_family
from aiinfra_widgets.validation.metrics import LAYER_METRICS
from aiinfra_widgets.validation.rows import read, shipped
from aiinfra_widgets.validation.training_rows import Batch, expressed

FACTS = Parameters.facts()


@pytest.fixture(scope="module")
def jobs():
    return expressed(read(shipped()))[0]


@pytest.fixture(scope="module")
def fitted(jobs):
    return fit(jobs)


def mape(jobs, parameters):
    batch = Batch(jobs)
    return 100 * float(np.abs(batch.predict(parameters) / batch.time_s - 1).mean())


def made_with(jobs, parameters):
    """The same runs as if these parameters had been true."""
    times = Batch(jobs).predict(parameters)
    return [replace(job, time_s=float(t)) for job, t in zip(jobs, times, strict=True)]


def test_the_shipped_parameters_are_what_fitting_gives(jobs, fitted):
    # Constants are the fit's result, not set by hand: fitting again gains next to nothing, and moves nothing far.
    assert mape(jobs, fitted) >= mape(jobs, PARAMETERS) - 0.2
    for name in Parameters.fitted():
        assert abs(getattr(fitted, name) - getattr(PARAMETERS, name)) <= 0.1 * FACTS[name]["spread"], name


def test_the_fit_does_not_depend_on_where_it_begins(jobs, fitted):
    begin = Parameters(**{name: fact["expected"] for name, fact in FACTS.items()})
    again = fit(jobs, begin)
    for name in Parameters.fitted():
        assert abs(getattr(fitted, name) - getattr(again, name)) <= 0.2 * FACTS[name]["spread"], name


def test_it_finds_the_parameters_that_made_the_data(jobs):
    truth = replace(PARAMETERS, flash_frac=0.55, fabric_frac=0.8, elementwise_traffic=1.3, score_passes=5.0)
    made = made_with(jobs, truth)
    found = fit(made)
    assert mape(made, found) < 1 < mape(made, PARAMETERS) / 3
    for name in ("flash_frac", "fabric_frac", "elementwise_traffic", "score_passes"):
        # The pull towards the expectation keeps it from the truth by less than a spread.
        assert abs(getattr(found, name) - getattr(truth, name)) < 0.5 * FACTS[name]["spread"], name


def test_without_evidence_a_parameter_stays_at_its_expectation(jobs):
    # No run of SC21 uses fused attention, 8 bits or a compiler.
    old = [j for j in jobs if "SC21" in j.row["source"]]
    found = fit(old)
    for name in ("flash_frac", "flash_native_frac", "fp8_rate_frac", "compiled_elementwise_traffic"):
        assert getattr(found, name) == pytest.approx(FACTS[name]["expected"], rel=1e-3)


def test_what_is_not_fitted_and_every_bound_are_kept(jobs):
    begin = replace(PARAMETERS, memory_frac=0.7, optimizer_bytes=40.0)
    wild = [replace(j, time_s=j.time_s * factor) for j, factor in zip(jobs[::4], [0.05, 20] * len(jobs), strict=False)]
    found = fit(wild, begin)  # Parameters refuses what is out of bounds
    assert (found.memory_frac, found.optimizer_bytes) == (0.7, 40.0)


def test_one_odd_row_does_not_rule(jobs, fitted):
    odd = [replace(jobs[0], time_s=100 * jobs[0].time_s), *jobs[1:]]
    assert mape(jobs[1:], fit(odd)) < mape(jobs[1:], fitted) + 1


def test_each_source_is_left_out_once_and_does_no_worse_than_half_more(jobs, fitted):
    held = leave_one_source_out(jobs)
    assert [h.source for h in held] == list(dict.fromkeys(source_family(j.row["source"]) for j in jobs))
    assert sum(len(h.errors) for h in held) == len(jobs)
    crossed = 100 * float(np.abs(np.concatenate([h.errors for h in held])).mean())
    assert mape(jobs, fitted) < crossed <= 1.5 * mape(jobs, PARAMETERS)
    # Neither is a constant share of the peak as good, even one that has seen the rows that it predicts.
    steps = [j for j in jobs if j.row["metric"] not in LAYER_METRICS]
    assert max(crossed, mape(steps, PARAMETERS)) < min(b.mape for b in baselines(jobs))


def test_a_source_that_is_alone_cannot_be_left_out(jobs):
    assert leave_one_source_out([j for j in jobs if "SC21" in j.row["source"]]) == []


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("NVIDIA Megatron-Bridge performance summary (25.09 Container)", "NVIDIA Megatron-Bridge performance summary"),
        ("Narayanan et al. 2021 (SC21), arXiv:2104.04473", "Narayanan et al. 2021 (SC21), arXiv:2104.04473"),
    ],
)
def test_containers_of_one_product_are_one_source(source, family):
    assert source_family(source) == family
