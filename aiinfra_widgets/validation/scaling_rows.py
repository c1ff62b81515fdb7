"""Published rows of scaling: images per second of convolutional nets, and how the time to train changes with devices.

Images per second are predicted outright. The time to train is predicted as a ratio: the smallest system of a submitter and
benchmark is the anchor, which is given and not predicted, and the model says how the time changes from there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from ..errors import LabError
from ..models.convergence import (
    SCALING_PARAMETERS,
    Convergence,
    ScalingParameters,
    arithmetic_from_step_s,
    fit_convergence,
    strong_scaling_step_s,
)
from ..models.convolution import CONV_PARAMETERS, ConvParameters, data_parallel_step, hierarchical_allreduce_time_s
from ..models.convolution_nets import NETS, ConvNet, resnet
from ..models.transformer.cluster import Cluster
from ..planning.hardware import cluster_for, precision_key

Row = Mapping[str, str]
IMAGES, TIME, EFFICIENCY = "images_per_s_total", "time_to_train_min", "scaling_efficiency_pct"
GRADIENT_BYTES = 2  # of the training in mixed precision that the benchmarks of time to train use


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What of a benchmark decides how its time to train scales.

    Attributes:
        reduced: Elements of the gradient that each device reduces with its replicas (after model parallelism).
        kernels: In one step of one device, about.
        points: Pairs (global batch, samples to the target quality) of the reference implementation.
        open_bytes: Per sample, exchanged between all devices in the open (embeddings there and gradients back).
    """

    reduced: float
    kernels: int
    points: tuple[tuple[float, float], ...]
    open_bytes: float = 0.0

    @property
    def convergence(self) -> Convergence:
        """The law through the points."""
        return _law(self.points)


def _epochs(samples: float, *points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return tuple((batch, epochs * samples) for batch, epochs in points)


@cache
def _law(points: tuple[tuple[float, float], ...]) -> Convergence:
    return fit_convergence(points)


#: Part of the model's name in a row, lower case without signs -> benchmark. Points: mean of the middle half of the runs in
#: MLCommons' reference convergence points, github.com/mlcommons/logging at 7bbf792, mlperf_logging/rcp_checker (training 4.0
#: and what it takes over); no submitter's result is used. Elements: papers of the models. Kernels: counted roughly.
BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "bertlarge": Benchmark(
            336e6,
            1000,
            (
                (256, 2543923),
                (448, 2427746),
                (1536, 2774630),
                (3072, 2754970),
                (4096, 2840986),
                (4608, 2803968),
                (6144, 3320218),
                (8192, 4182835),
                (12288, 4457856),
                (16384, 5504307),
            ),
        ),
        "resnet50": Benchmark(
            25.6e6,
            400,
            _epochs(
                1281167,
                (1632, 34.889),
                (3264, 35.111),
                (4096, 39.833),
                (8192, 41.833),
                (13056, 45.5),
                (32768, 56),
                (49152, 68),
                (58880, 80),
                (67840, 85.929),
            ),
        ),
        "retinanet": Benchmark(
            37e6,
            800,
            _epochs(
                1170301,
                (256, 4),
                (512, 5),
                (768, 5),
                (1024, 6),
                (1280, 6.8),
                (2048, 8),
                (2560, 8.714),
                (4096, 15),
            ),
        ),
        "unet3d": Benchmark(19e6, 300, ((28, 334118), (56, 352053), (64, 384274), (84, 409371))),
        "dlrmdcnv2": Benchmark(
            16e6,
            100,
            _epochs(4195197692, (32768, 0.7), (55296, 0.756), (65536, 0.778), (102400, 0.898), (135168, 0.93)),
            open_bytes=2 * 26 * 128 * 2,
        ),
        "rgat": Benchmark(
            25e6,
            400,
            _epochs(157675969, (4096, 0.79), (16384, 0.86), (32768, 0.94), (65536, 1.18), (262144, 2.455)),
        ),
        "llama270blora": Benchmark(45e6, 4000, ((8, 3187), (16, 3878), (32, 5990), (128, 11098))),
        "stablediffusion": Benchmark(865e6, 2000, ((384, 2561280), (512, 2560000), (1024, 2852571), (2048, 4022857))),
        # 32 devices hold one replica (tensor times pipeline parallelism); sequences of 2048 tokens
        "gpt3": Benchmark(
            175e9 / 32,
            4000,
            tuple(
                (b, n / 2048)
                for b, n in ((1536, 1.195e9), (2048, 1.183e9), (3072, 1.208e9), (4096, 1.258e9), (8192, 1.623e9))
            ),
        ),
    }
)


def predict_scaling_row(
    row: Row,
    rows: Sequence[Row],
    conv: ConvParameters = CONV_PARAMETERS,
    scaling: ScalingParameters = SCALING_PARAMETERS,
) -> tuple[float | None, str]:
    """Return the predicted value of a row in the row's own unit, or None and why not.

    Args:
        row: One line of the schema of published rows.
        rows: All lines, among which the anchor of a time to train is looked for.
        conv, scaling: Parameters of the two models.

    Valid when: images per second, time to train, scaling efficiency of convolutional nets. Off by: see the models.
    Source: `convolution` and `convergence`.
    """
    metric = row.get("metric")
    try:
        if metric == IMAGES:
            return _images(row, conv)
        if metric == EFFICIENCY:
            return _efficiency(row, conv)
        if metric == TIME:
            return _time_to_train(row, rows, scaling)
    except LabError as error:
        return None, str(error)
    return None, f"the models of scaling predict {IMAGES}, {TIME} and {EFFICIENCY}, not {metric!r}"


def _images(row: Row, parameters: ConvParameters) -> tuple[float | None, str]:
    net, devices = _net(row), _count(row, "n_accel")
    if net is None:
        return None, f"{row.get('model')!r} is none of the convolutional nets: {', '.join(NETS)}"
    if devices is None:
        return None, "n_accel is not printed"
    precision = _precision(row)
    cluster = _cluster(row, precision)
    batch = _count(row, "micro_batch")
    if batch is None:
        whole = _count(row, "global_batch")
        # Where the batch is not printed, what fits the memory is taken: throughput hardly depends on it there.
        batch = whole / devices if whole else 256.0 if precision in ("fp16", "bf16") else 128.0
    step = data_parallel_step(net, cluster, batch, devices, precision, _fused(row), parameters).step_time_s
    return float(batch * devices / step), ""


def _efficiency(row: Row, parameters: ConvParameters) -> tuple[float | None, str]:
    net, devices = _net(row), _count(row, "n_accel")
    batch = re.search(r"batch (\d+)/GPU", row.get("notes", ""))
    if net is None or devices is None or batch is None:
        return None, "a convolutional net, n_accel, and 'batch N/GPU' in the notes are needed"
    precision = _precision(row)
    cluster = _cluster(row, precision)
    one, many = (
        data_parallel_step(net, cluster, float(batch[1]), n, precision, _fused(row), parameters).step_time_s
        for n in (1, devices)
    )
    return float(100 * one / many), ""


def _time_to_train(row: Row, rows: Sequence[Row], parameters: ScalingParameters) -> tuple[float | None, str]:
    benchmark, devices = _benchmark(row), _count(row, "n_accel")
    if benchmark is None or devices is None:
        return (
            None,
            f"no convergence points for {row.get('model')!r}" if benchmark is None else "n_accel is not printed",
        )
    group = [r for r in rows if _same(r, row) and _count(r, "n_accel") and _number(r, "value")]
    anchors = [r for r in group if _count(r, "n_accel") == min(_count(g, "n_accel") or math.inf for g in group)]
    if not anchors or _count(anchors[0], "n_accel") == devices:
        other = len({_count(r, "n_accel") for r in group}) > 1
        return None, "the anchor of its group: given, not predicted" if other else (
            "one system size only of this submitter, benchmark and accelerator: there is no ratio"
        )
    guesses = [_from_anchor(row, anchor, benchmark, parameters) for anchor in anchors]
    if None in guesses:
        return None, "neither a global batch nor a number of steps is printed"
    return math.exp(sum(math.log(g) for g in guesses if g) / len(guesses)), ""


def _from_anchor(row: Row, anchor: Row, benchmark: Benchmark, parameters: ScalingParameters) -> float | None:
    """Minutes to train of `row`, from the minutes of `anchor`."""
    cluster = _cluster(row, "fp16")
    floor = benchmark.kernels * parameters.kernel_time_s
    schedule = [_schedule(r, benchmark) for r in (anchor, row)]
    if schedule[0] is None or schedule[1] is None:
        return None
    (steps_then, batch_then), (steps_now, batch_now) = schedule[0], schedule[1]
    n_then, n_now = _count(anchor, "n_accel") or 1.0, _count(row, "n_accel") or 1.0
    minutes = _number(anchor, "value") or math.nan
    # A share of the start where a run is so short that the assumed start would be most of it.
    start = min(parameters.start_s, 0.1 * minutes * 60)
    comm_then, comm_now = (_comm(benchmark, cluster, n, b) for n, b in ((n_then, batch_then), (n_now, batch_now)))
    step_then = (minutes * 60 - start) / steps_then
    work = arithmetic_from_step_s(step_then, floor, *comm_then, n_then, parameters)
    share = (batch_now / n_now) / (batch_then / n_then)
    step_now = strong_scaling_step_s(work * share, floor, *comm_now, n_now, parameters)
    return float((start + steps_now * step_now) / 60)


def _schedule(row: Row, benchmark: Benchmark) -> tuple[float, float] | None:
    """Return (steps, global batch): by the law, or of one recipe for all sizes, as the notes print it (two phases)."""
    batch = _count(row, "global_batch")
    if batch:
        return float(benchmark.convergence.steps(batch)), batch
    fixed = re.search(r"(\d+)-step phases; same recipe all sizes", row.get("notes", ""))
    return (2 * float(fixed[1]), 1.0) if fixed else None


def _comm(benchmark: Benchmark, cluster: Cluster, devices: float, batch: float) -> tuple[float, float]:
    """Return (seconds of the gradients' all-reduce, seconds of the open exchange) of one step."""
    reduce = hierarchical_allreduce_time_s(benchmark.reduced * GRADIENT_BYTES, devices, cluster)
    inside = devices <= cluster.per_node
    link = cluster.node_bandwidth_oneway_bytes_per_s if inside else cluster.fabric_bandwidth_oneway_bytes_per_s
    leaves = (devices - 1) / devices if inside else 1 - cluster.per_node / devices
    return float(reduce), float(benchmark.open_bytes * batch / devices * leaves / link)


def _same(one: Row, other: Row) -> bool:
    return all(one.get(k) == other.get(k) for k in ("metric", "source", "model", "accelerator"))


def _benchmark(row: Row) -> Benchmark | None:
    name = re.sub(r"[^a-z0-9]", "", row.get("model", "").casefold())
    return next((benchmark for key, benchmark in BENCHMARKS.items() if key in name), None)


def _net(row: Row) -> ConvNet | None:
    name = row.get("model", "")
    if name == "ResNet-50" and row.get("source", "").startswith("TensorFlow benchmarks"):
        return resnet(50, stride_in_3x3=False)  # in 2017 the first version of the net
    return NETS[name]() if name in NETS else None


def _fused(row: Row) -> bool:
    """MLPerf's submissions of ResNet are MXNet's; TensorFlow and PyTorch ran norm, activation and sum apart."""
    return any(word in row.get("source", "") for word in ("MXNet", "MLPerf"))


def _precision(row: Row) -> str:
    """MLPerf does not print the format; its submissions of ResNet train in 16 bits."""
    return precision_key(row.get("precision") or "fp16")


def _cluster(row: Row, precision: str) -> Cluster:
    return cluster_for(row.get("accelerator", ""), precision, row.get("source", ""))


def _number(row: Row, column: str) -> float | None:
    try:
        value = float(row.get(column, ""))
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


def _count(row: Row, column: str) -> float | None:
    value = _number(row, column)
    return value if value is not None and value >= 1 else None
