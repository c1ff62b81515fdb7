"""What holds for every model: sweeps in one call, refusal of NaN and of what is outside the domain, docstrings."""

import inspect
import math
import pickle
import re

import numpy as np
import pytest

import aiinfra_widgets.models as models
from aiinfra_widgets.errors import ModelInputError

N = np.array([1, 2, 3, 8, 64])
F = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
T = np.array([0.0, 1e-3, 0.2, 4.0, 50.0])
L = np.array(
    [0.0, 0.5, 2.0, 7.9, 70.0]
)  # arrivals per second for N servers that do 1 per second each: the last too many

# Each public function that computes, with arguments that sweep.
SWEEPS = {
    "roofline_time_s": (T, T[::-1], 1e3, np.array([1.0, 2, 3, 4, 5])),
    "ridge_point_flop_per_byte": (1e12, N * 1e9),
    "attainable_flops": (T, 1.0, 0.5),
    "shared_bandwidth_bytes_per_s": (10e9, 20e9, N),
    "oversubscription_factor": (N, 2, 1),
    "time_sliced_time_s": (T, N, 2, 1, F),
    "point_to_point_time_s": (T, 1e9, 1e-6),
    "ring_allreduce_time_s": (T, N, 1e9, 1e-6),
    "tree_allreduce_time_s": (T, N, 1e9, 1e-6),
    "recursive_doubling_allreduce_time_s": (T, N, 1e9, 1e-6),
    "halving_doubling_allreduce_time_s": (T, N, 1e9, 1e-6),
    "ring_reduce_scatter_time_s": (T, N, 1e9, 1e-6),
    "ring_allgather_time_s": (T, N, 1e9, 1e-6),
    "binomial_broadcast_time_s": (T, N, 1e9, 1e-6),
    "algbw_bytes_per_s": (T, T + 1),
    "expected_max_time_s": (T + 1, 0.1, N),
    "straggler_wait_time_s": (T + 1, 0.1, N),
    "normal_max_factor": (N,),
    "ideal_speedup": (N,),
    "amdahl_speedup": (N, F),
    "gustafson_speedup": (N, F),
    "usl_speedup": (N, F, F / 100),
    "usl_peak_nodes": (F, F / 100),
    "speedup": (T + 1, T + 2),
    "strong_efficiency_frac": (T + 1, T + 2, N),
    "weak_efficiency_frac": (T + 1, T + 2),
    "karp_flatt_serial_frac": (T + 1, N + 1),
    "linear_power_w": (T, T + 3, F),
    "node_power_w": (N, T, T + 3, F),
    "energy_j": (T, N),
    "energy_kwh": (T,),
    "facility_energy_j": (T, 1 + F),
    "operational_gco2e": (T, N * 1.0),
    "embodied_gco2e": (T, T, 1e6, 0.5 + F / 2),
    "embodied_share_frac": (T, T + 1),
    "rented_cost_usd": (N, T, 2.5),
    "billed_time_s": (T, 60.0, N),
    "capital_cost_usd": (N, T, 1e4, 1e8, 0.5 + F / 2),
    "energy_cost_usd": (T, 0.3, 1 + F),
    "owned_cost_usd": (N, T, 1e4, 1e8, T, 0.3),
    "utilization": (L, 1.0, N),
    "little_length": (L, T),
    "little_time_s": (T, L + 1),
    "little_rate_per_s": (L, T + 1),
    "erlang_b": (L, 1.0, N),
    "erlang_c": (L, 1.0, N),
    "mm1_wait_s": (F, N * 0.9),
    "mm1_response_s": (F, N * 0.9),
    "mmc_wait_s": (L, 1.0, N),
    "mmc_response_s": (L, 1.0, N),
    "mmc_queue_length": (L, 1.0, N),
    "mmc_shared_cores_wait_s": (L, 1.0, N, 2),
    "mmc_shared_cores_response_s": (L, 1.0, N, 2),
    "naive_response_s": (L, T + 1),
    "mmck_rejected_frac": (L, 1.0, N, N[::-1]),
    "mmck_throughput_per_s": (L, 1.0, N, N[::-1]),
    "mmck_queue_length": (L, 1.0, N, N[::-1]),
    "mmck_wait_s": (L, 1.0, N, N[::-1]),
    "md1_wait_s": (F, N * 0.9),
    "mg1_wait_s": (F, N * 0.9, T),
    "mdc_wait_s": (L, 1.0, N),
    "allen_cunneen_wait_s": (L, 1.0, N, F, T),
    "kingman_bound_wait_s": (F, N * 0.9, F, T),
    "transient_queue_length": (L, 1.0, N, T, F, T),
    "mmc_wait_tail_frac": (L, 1.0, N, T),
    "mmc_response_tail_frac": (L, 1.0, N, T),
    "mmc_wait_percentile_s": (L, 1.0, N, F),
    "mmc_response_percentile_s": (L, 1.0, N, F),
    "ggc_wait_percentile_s": (L, 1.0, N, F, F, T),
    "ggc_response_percentile_s": (L, 1.0, N, F, F, T),
    "ggc_response_tail_frac": (L, 1.0, N, T, F, T),
    "knee_rate_per_s": (T + 1, N, F, T, 1 + F),
    "slo_rate_per_s": (1.0, N, T, F, F, T),
    "fixed_batch_response_s": (L, N, 0.1, 0.2, 2, F),
    "dynamic_batch_response_s": (L, N, 0.1, 0.2, T, 2),
    "dynamic_batch_size": (L, N, 0.1, 0.2, T, 2),
    "bulk_service_response_s": (L, 1.0, N),
    "fork_join_lower_s": (F, 1.0, N),
    "fork_join_upper_s": (F, 1.0, N),
    "fork_join_response_s": (F, 1.0, np.minimum(N, 32)),
}
ELSEWHERE = {  # tested in their own files: they return objects, or take something else first
    "blocking_step",
    "bucket_bounds",
    "overlapped_step",
    "fastest_allreduce",
    "busbw_factor",
    "busbw_bytes_per_s",
    "fit_alpha_beta",
    "fit_usl",
    "flat_rate",
    "slow_rank_parts",
    "arrival_times",
    "service_times",
    "service_kind",
    "simulate_queue",
    "highest_rate_per_s",
}


def _functions():
    return {n for n in models.__all__ if inspect.isfunction(getattr(models, n))}


def test_every_public_function_is_swept_here_or_listed():
    assert _functions() == set(SWEEPS) | ELSEWHERE


@pytest.mark.parametrize("name", SWEEPS)
def test_one_call_predicts_the_whole_sweep(name):
    arguments = np.broadcast_arrays(*SWEEPS[name])
    function = getattr(models, name)
    sweep = function(*SWEEPS[name])
    one_by_one = [function(*(a[i].item() for a in arguments)) for i in range(len(N))]
    assert np.shape(sweep) == N.shape
    assert all(np.ndim(value) == 0 for value in one_by_one)
    np.testing.assert_allclose(sweep, one_by_one, rtol=1e-12)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_of_two_axes_broadcast(name):
    first, *rest = SWEEPS[name]
    grid = getattr(models, name)(np.asarray(first)[..., None] + np.zeros(2), *(np.asarray(a)[..., None] for a in rest))
    flat = getattr(models, name)(*SWEEPS[name])
    np.testing.assert_allclose(grid, np.stack([flat, flat], axis=-1), rtol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, -1.0, "many", None], ids=["nan", "negative", "text", "none"])
@pytest.mark.parametrize("name", SWEEPS)
def test_every_argument_refuses_what_is_no_amount(name, bad):
    good = [a[0].item() if np.ndim(a) else a for a in SWEEPS[name]]
    for i in range(len(good)):
        with pytest.raises(ModelInputError):
            getattr(models, name)(*good[:i], bad, *good[i + 1 :])


def test_one_bad_element_of_a_sweep_is_named():
    with pytest.raises(ModelInputError, match=r"world_size must be a whole number >= 1 and finite, got 0; a job has"):
        models.ring_allreduce_time_s(1e6, np.array([4, 0, 2]), 1e9, 1e-6)


def test_ranks_are_whole():
    with pytest.raises(ModelInputError, match=r"got 2\.5"):
        models.tree_allreduce_time_s(1e6, 2.5, 1e9, 1e-6)


def test_the_error_survives_pickling_between_ranks():
    with pytest.raises(ModelInputError) as caught:
        models.energy_j(-1, 1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("name", sorted(_functions()))
def test_docstring_states_errors_domain_bias_and_source(name):
    text = inspect.getdoc(getattr(models, name))
    for _ in range(2):  # "as `another`" means that the other one's docstring states it
        others = _functions() & {*re.findall(r"as `(\w+)`", text)}
        text += "".join(inspect.getdoc(getattr(models, other)) for other in others)
    for word in ("raises", "valid when", "off by", "source"):
        assert word in text.lower(), f"{name} does not state {word!r}"


def test_models_do_no_io_and_stay_light():
    for path in (p for p in __import__("pathlib").Path(models.__file__).parent.glob("*.py")):
        words = path.read_text()
        assert not any(f"import {heavy}" in words for heavy in ("torch", "scipy", "pandas", "mpi4py", "os", "pint"))
        assert "open(" not in words
        assert words.count("\n") < 400  # as everywhere
