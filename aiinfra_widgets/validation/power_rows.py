"""Published rows of power, energy, carbon and accelerator hours, by the power model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ..errors import LabError
from ..models import power as power_model
from ..models.power import (
    POWER_PARAMETERS,
    DeviceRun,
    PowerParameters,
    ac_power_w,
    device_power_w,
    energy_per_token_j,
    node_dc_power_w,
    run_under_limit,
    streaming_power_w,
)
from . import energy_rows
from .energy_rows import EXPECTED, ROW_PARAMETERS, Device, RowParameters, Workload, device, number, workload
from .inference_rows import METRIC as TOKENS_METRIC
from .inference_rows import predict_inference_row

Row = Mapping[str, str]
Answer = tuple[float | None, str]
#: Share of the peak that a training run of unknown plan reaches: the middle of what is published, 0.3 to 0.5.
TRAINING_MFU = 0.40
#: Time outside matrix products of a run of which only the rate is known: half memory traffic, half communication.
REST_MEMORY_FRAC = 0.5
#: All-reduce inside a node: share of the links' one-way 450 GB/s that large messages reach.
NODE_BUSBW_BYTES_PER_S = 0.75 * 450e9
DEVICES_PER_NODE = 8
#: Rows that the parameters are fitted on; those of inference, derived ones and hours are not.
FITTED_METRICS = (
    *("avg_power_w_gpu", "time_per_epoch_s", "avg_power_w_per_accel_system"),
    *("avg_power_w_per_node_AC", "avg_power_w_per_node_DC", "energy_kwh_nodes_AC", "energy_kwh_nodes_DC"),
)
#: A parameter at the far end of its range weighs as much as an error of this size in one row.
PRIOR_WEIGHT = 0.8
#: Tokens computed for each token of an answer: the prompt of a chat request is about a third of its answer.
PROMPT_AND_ANSWER = 1.3


@dataclass(frozen=True, slots=True)
class Model:
    """Both sets of parameters, and devices that were looked up before; a fit puts others here."""

    power: PowerParameters = POWER_PARAMETERS
    rows: RowParameters = ROW_PARAMETERS
    devices: Mapping[str, Device] = field(default_factory=dict)

    def device(self, row: Row) -> Device:
        """Return the row's device, from the catalog if need be."""
        name = row.get("accelerator", "")
        return self.devices[name] if name in self.devices else device(name)

    def idle_w(self, chip: Device) -> float:
        """Return the idle power: measured, or the fitted share of the rated power."""
        return self.rows.idle_frac * chip.rated_w if chip.idle_w is None else chip.idle_w


MODEL = Model()


@dataclass(frozen=True, slots=True)
class Phases:
    """Time of each kind of work on one device, in seconds, for the same amount of work."""

    matrix: float
    memory: float
    communication: float
    waiting: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.matrix + self.memory + self.communication + self.waiting


def predict_power_row(row: Row, model: Model = MODEL) -> Answer:
    """Return the predicted value of a row of power, energy, carbon or cost in the row's own unit, or None and why not.

    Args:
        row: One line of the schema of published rows; what has no column there is read from its notes.
        model: The parameters.

    Returns:
        The value and "", or a word on it that begins with "derived" where the published value is itself arithmetic on
        other numbers, so that it is no evidence of its own; None and the reason where the row lacks an input.

    Valid when: the row names a device of the catalog and a job that is known. Off by: see the command `validate`.
    Source: `models.power`; work of the jobs in `energy_rows`.
    """
    predict = METRICS.get(row.get("metric", ""))
    if predict is None:
        return None, f"no model of power predicts {row.get('metric')!r}; known: {', '.join(METRICS)}"
    try:
        return predict(row, model)
    except LabError as error:
        return None, str(error)


def _gpu_under_limit(row: Row, model: Model) -> tuple[DeviceRun, float] | str:
    work = workload(row)
    limit_w = number(r"power limit (\d+(?:\.\d+)?) W", row.get("notes", ""))
    if limit_w is None or row.get("n_accel") != "1":
        return "needs one device and 'power limit N W' in the notes"
    chip = model.device(row)
    batch = number(r"^(\d+)$", row.get("global_batch", "")) or 1.0
    phases = training_phases(work, chip, batch, 1, model.rows, tensor_cores=False)
    run = run_under_limit(
        phases.matrix, phases.memory, 0.0, phases.waiting, model.idle_w(chip), chip.rated_w, limit_w, model.power
    )
    return run, work.samples_per_epoch / batch


def _gpu_power(row: Row, model: Model) -> Answer:
    found = _gpu_under_limit(row, model)
    return (None, found) if isinstance(found, str) else (float(found[0].power_avg_w), "")


def _epoch_time(row: Row, model: Model) -> Answer:
    found = _gpu_under_limit(row, model)
    if isinstance(found, str):
        return None, found
    run, steps = found
    if not steps:
        return None, f"the samples in an epoch of {row.get('model')!r} are not known"
    return float(run.time_s) * steps, ""


def training_phases(
    work: Workload, chip: Device, batch: float, devices: int, p: RowParameters, *, tensor_cores: bool
) -> Phases:
    """Return the phases of one training step on one device.

    Args:
        work: Of one sample.
        chip: The device.
        batch: Samples of a step, all devices together.
        devices: Of the job.
        p: The fitted numbers.
        tensor_cores: 16-bit products on tensor cores; otherwise fp32 without them.
    """
    share = batch / devices
    if tensor_cores:
        reached = p.convolution_frac if work.convolutional else chip.tensor_frac
        rate, element_bytes = chip.tensor_flops * reached, 2
    else:
        rate, element_bytes = (chip.fp32_flops or 0.0) * p.fp32_matrix_frac, 4
    matrix = share * work.matrix_flop / rate
    memory = share * work.memory_elements * element_bytes / (chip.bandwidth_bytes_per_s * p.memory_bandwidth_frac)
    if devices == 1:
        return Phases(matrix, memory, 0.0, max(0.0, share * p.loader_s_per_sample - matrix - memory))
    return Phases(matrix, memory, p.step_overhead_s + _split_comm_s(work, batch, devices), 0.0)


def _split_comm_s(work: Workload, batch: float, devices: int) -> float:
    """Return the time of a split model's all-reduces in one step on one device: four for each layer, two each way.

    The model is split over as many devices as its weights fill, and over as many as there are for each sample.
    """
    split = min(DEVICES_PER_NODE, max(work.least_split, devices / batch))
    if not work.layers or split == 1:
        return 0.0
    passes = batch * split / devices
    size_bytes = 2.0 * work.seq_len * work.hidden
    return 4 * work.layers * passes * 2 * (split - 1) / split * size_bytes / NODE_BUSBW_BYTES_PER_S


def _node_power(row: Row, model: Model) -> Answer:
    work = workload(row)
    devices, batch = (number(r"^(\d+)$", row.get(name, "")) for name in ("n_accel", "global_batch"))
    if not devices or not batch or devices % DEVICES_PER_NODE:
        return None, f"needs global_batch and n_accel as a multiple of {DEVICES_PER_NODE}"
    chip = model.device(row)
    phases = training_phases(work, chip, batch, int(devices), model.rows, tensor_cores=True)
    dc_w = node_dc_power_w(
        DEVICES_PER_NODE,
        _chip_power_w(chip, phases, model),
        DEVICES_PER_NODE * chip.host_rated_w * model.rows.host_load_frac,
        0,
        0,
        chip.fan_frac,
    )
    alternating = row["metric"].endswith("_AC")
    return float(ac_power_w(dc_w, model.rows.conversion_efficiency_frac) if alternating else dc_w), ""


def _node_energy(row: Row, model: Model) -> Answer:
    time_s = number(r"mean run time ([\d.]+) s", row.get("notes", ""))
    if time_s is None:
        return None, "the notes do not print 'mean run time'"
    power_w, reason = _node_power(row, model)
    if power_w is None:
        return None, reason
    return power_w * float(row["n_accel"]) / DEVICES_PER_NODE * time_s / 3.6e6, ""


def _chip_power_w(chip: Device, phases: Phases, model: Model) -> Any:
    return device_power_w(
        model.idle_w(chip),
        chip.rated_w,
        phases.matrix / phases.total,
        phases.memory / phases.total,
        phases.communication / phases.total,
        model.power,
    )


def _system_power(row: Row, model: Model) -> Answer:
    notes = row.get("notes", "")
    flop, days = number(r"total FLOPs ([\d.eE+]+)", notes), number(r"training days ([\d.]+)", notes)
    devices = number(r"^(\d+)$", row.get("n_accel", ""))
    if not flop or not days or not devices:
        return None, "needs n_accel, and 'total FLOPs' and 'training days' in the notes"
    chip = model.device(row)
    # A peak cannot be passed: a larger figure is an error of the row.
    matrix = min(1.0, flop / (days * 86400 * devices * chip.tensor_flops * chip.tensor_frac))
    rest = 1 - matrix
    phases = Phases(matrix, rest * REST_MEMORY_FRAC, rest * (1 - REST_MEMORY_FRAC), 0.0)
    host_w = chip.host_rated_w * model.rows.host_load_frac
    return float(node_dc_power_w(1, _chip_power_w(chip, phases, model), host_w, 0, 0, chip.fan_frac)), ""


def _facility_energy(row: Row, model: Model) -> Answer:
    notes = row.get("notes", "")
    days, pue = number(r"training days ([\d.]+)", notes), number(r"PUE ([\d.]+)", notes)
    if not days or not pue:
        return None, "derived: the accelerator hours it was computed from are in another row, not in this one"
    power_w, reason = _system_power(row, model)
    if power_w is None:
        return None, reason
    mwh = power_w * float(row["n_accel"]) * days * 24 * pue / 1e6
    return mwh, "derived: modelled power x accelerators x days x PUE; no evidence beside the power row"


def _carbon(row: Row, model: Model) -> Answer:
    kg_per_kwh = number(r"carbon intensity ([\d.]+) kg/kWh", row.get("notes", ""))
    mwh, reason = _facility_energy(row, model)
    if mwh is None or kg_per_kwh is None:
        return None, reason if mwh is None else "derived: the grid's intensity is not in the notes"
    return mwh * kg_per_kwh, "derived: modelled energy x the intensity in the notes; no evidence beside the power row"


def _hours(row: Row, model: Model) -> Answer:
    tokens = number(r"tokens=([\d.eE+]+)T?", row.get("notes", ""))
    if tokens is not None and tokens < 1e6:
        tokens *= 1e12
    tokens = tokens or number(r"([\d,]{9,}) tokens total", row.get("notes", ""))
    params = number(r"^(\d+(?:\.\d+)?)$", row.get("params", ""))
    if not tokens or not params:
        return None, "needs params, and the tokens in the notes"
    peak = model.device(row).tensor_flops
    hours = 6 * params * tokens / (peak * TRAINING_MFU) / 3600
    return hours, f"derived: 6 x parameters x tokens at {TRAINING_MFU:.0%} of the peak, since the plan is not published"


def _energy_per_token(row: Row, model: Model) -> Answer:
    if row.get("n_accel") != "1":
        return None, "needs one device"
    tokens_per_s, reason = predict_inference_row({**row, "metric": TOKENS_METRIC})
    if tokens_per_s is None:
        return None, reason
    chip = model.device(row)
    params = number(r"^(\d+(?:\.\d+)?)$", row.get("params", ""))
    if not params:
        return None, "needs params"
    flops = tokens_per_s * 2 * params * PROMPT_AND_ANSWER
    matrix = min(1.0, flops / (chip.tensor_flops * chip.tensor_frac))
    power_w = streaming_power_w(model.idle_w(chip), chip.rated_w, matrix, model.power)
    return float(energy_per_token_j(power_w, tokens_per_s)), ""


METRICS: Mapping[str, Callable[[Row, Model], Answer]] = MappingProxyType(
    {
        "avg_power_w_gpu": _gpu_power,
        "time_per_epoch_s": _epoch_time,
        "avg_power_w_per_node_AC": _node_power,
        "avg_power_w_per_node_DC": _node_power,
        "energy_kwh_nodes_AC": _node_energy,
        "energy_kwh_nodes_DC": _node_energy,
        "avg_power_w_per_accel_system": _system_power,
        "energy_mwh_facility": _facility_energy,
        "tco2e_gross": _carbon,
        "tco2e_net": _carbon,
        "tco2e": _carbon,
        "tco2e_location_based": _carbon,
        "accel_hours": _hours,
        "energy_j_per_output_token": _energy_per_token,
    }
)


def _fitted_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that a fit can use; an error relative to a published 0 is none."""
    fitted = [r for r in rows if r.get("metric") in FITTED_METRICS and float(r["value"]) > 0]
    return [r for r in fitted if predict_power_row(r)[0] is not None]


def fit_power_model(rows: Sequence[Row]) -> Model:
    """Return the one parameter set that fits these rows best, each parameter held near what is expected of it.

    Args:
        rows: Of any metric; those outside `FITTED_METRICS` and those that cannot be expressed are left out.

    `matrix_frac` and `memory_clock_share_frac` are not fitted: the rows tell a demand above the rated power from the clock
    at which the voltage ends only together.
    """
    used = _fitted_rows(rows)
    bounds = {**power_model.BOUNDS, **energy_rows.BOUNDS}
    names = list(EXPECTED)
    low, high = (np.array([bounds[n][side] for n in names]) for side in (0, 1))
    expected = (np.array([EXPECTED[n] for n in names]) - low) / (high - low)
    published = np.array([float(r["value"]) for r in used])
    devices = {name: device(name) for name in {r["accelerator"] for r in used}}

    def residuals(x: np.ndarray) -> np.ndarray:
        values = np.clip(low + x * (high - low), low, high)
        model = _model(dict(zip(names, values.tolist(), strict=True)), devices)
        predicted = np.array([predict_power_row(r, model)[0] for r in used], dtype=float)
        return np.concatenate([np.log(predicted / published), PRIOR_WEIGHT * (x - expected)])

    found = least_squares(residuals, expected, bounds=(0, 1))
    return _model(dict(zip(names, (low + found.x * (high - low)).tolist(), strict=True)), {})


def _model(values: Mapping[str, float], devices: Mapping[str, Device]) -> Model:
    power, rows = (
        {f.name: values[f.name] for f in fields(kind) if f.name in values} for kind in (PowerParameters, RowParameters)
    )
    return Model(replace(POWER_PARAMETERS, **power), RowParameters(**rows), devices)


def leave_one_job_out(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Fit as often as there are jobs, each time without one job's rows, and return the errors of those, by job.

    A job is a source and a model: all limits of one net on one device, all node counts of one benchmark.
    """
    used = _fitted_rows(rows)
    names = [f"{r.get('source')}: {r.get('model')}" for r in used]
    held = {}
    for job in dict.fromkeys(names):
        model = fit_power_model([r for r, n in zip(used, names, strict=True) if n != job])
        left = [r for r, n in zip(used, names, strict=True) if n == job]
        predicted = np.array([predict_power_row(r, model)[0] for r in left], dtype=float)
        held[job] = predicted / np.array([float(r["value"]) for r in left]) - 1
    return held
