"""What the rows of power and energy do not print: the work of the named jobs, the range of a device, the host beside it.

All of it comes from sheets and from the definitions of nets and data sets. What was fitted to rows is in `RowParameters`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import UnknownNameError
from ..machine import catalog
from ..models._check import need

#: Allowed range of each fitted number.
BOUNDS = MappingProxyType(
    {
        "idle_frac": (0.08, 0.20),
        "fp32_matrix_frac": (0.60, 1.00),
        "convolution_frac": (0.20, 0.80),
        "memory_bandwidth_frac": (0.60, 0.95),
        "loader_s_per_sample": (0.2e-6, 20e-6),
        "step_overhead_s": (0.5e-3, 10e-3),
        "host_load_frac": (0.30, 1.00),
        "conversion_efficiency_frac": (0.92, 0.99),
    }
)


#: What is expected of each; a fit is held near it. Products and elementwise kernels: what kernel benchmarks reach;
#: convolutions on tensor cores about half of large products. Loader: 4 us to fetch and stack a record of three numbers
#: (3 us measured on a cloud core of 2026) over four workers, a number that is assumed. Idle, host, shelf: usual readings.
#: They are round numbers of the literature, written down with the rows in view: leaving a job out says a little too good
#: of them.
EXPECTED = MappingProxyType(
    {
        "memory_frac": 0.60,
        "communication_frac": 0.25,
        "voltage_floor_frac": 0.75,
        "idle_frac": 0.12,
        "fp32_matrix_frac": 0.90,
        "convolution_frac": 0.45,
        "memory_bandwidth_frac": 0.80,
        "loader_s_per_sample": 1.0e-6,
        "step_overhead_s": 3e-3,
        "host_load_frac": 0.65,
        "conversion_efficiency_frac": 0.97,
    }
)


@dataclass(frozen=True, slots=True)
class RowParameters:
    """The fitted numbers beside `models.power.PowerParameters`; one set for all rows.

    Attributes:
        idle_frac: Idle power of a GPU with a job loaded, as a share of its rated power.
        fp32_matrix_frac: Share of the fp32 peak that products and convolutions reach without tensor cores.
        convolution_frac: Share of the tensor cores' peak that the convolutions of a whole net reach.
        memory_bandwidth_frac: Share of the sheet's bandwidth that elementwise kernels reach.
        loader_s_per_sample: Host time that hands one record to the device; hidden behind the device where that is longer.
        step_overhead_s: Launches, stragglers and input of one step of a job with several devices; they spin meanwhile.
        host_load_frac: Power of the host, as a share of its rated power.
        conversion_efficiency_frac: Of the power shelf of a rack.

    Raises:
        ModelInputError: A value outside `BOUNDS`.
    """

    idle_frac: float
    fp32_matrix_frac: float
    convolution_frac: float
    memory_bandwidth_frac: float
    loader_s_per_sample: float
    step_overhead_s: float
    host_load_frac: float
    conversion_efficiency_frac: float

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            need(name, getattr(self, name), low, high, hint="see validation.energy_rows.BOUNDS")


#: What `power_rows.fit_power_model` finds on 60 measured rows: 42 of Zeus, 16 of SMC's nodes, 2 of Patterson. The loader
#: rests on the seven epoch times of one net (NCF) alone.
ROW_PARAMETERS = RowParameters(
    idle_frac=0.131,
    fp32_matrix_frac=0.977,
    convolution_frac=0.420,
    memory_bandwidth_frac=0.814,
    loader_s_per_sample=1.419e-6,
    step_overhead_s=2.69e-3,
    host_load_frac=0.680,
    conversion_efficiency_frac=0.970,
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the catalog with the range of its power.

    Attributes:
        rated_w: Power at most.
        idle_w: Power with nothing to do; None where only `RowParameters.idle_frac` of the rated power is known.
        tensor_flops, tensor_frac: Dense 16-bit peak and the share of it that large products reach.
        fp32_flops: Peak without tensor cores; None where the sheet has none.
        bandwidth_bytes_per_s: Of its memory.
        host_rated_w: Host and network cards, share of one device.
        fan_frac: Fans, as a share of the rest.
    """

    rated_w: float
    idle_w: float | None
    tensor_flops: float
    tensor_frac: float
    fp32_flops: float | None
    bandwidth_bytes_per_s: float
    host_rated_w: float
    fan_frac: float


#: Chip power as measured, lowest and highest: cloud.google.com/tpu/docs/v3 and v4. TPU v2: the v3 range by the ratio of
#: the two rated powers (280 to 450 W, Patterson et al. 2021), assumed. A TPU's rated power is far above what it draws.
CHIP_RANGE_W: Mapping[str, tuple[float | None, float]] = MappingProxyType(
    {"tpu-v2": (76.5, 163.0), "tpu-v3": (123.0, 262.0), "tpu-v4": (90.0, 192.0)}
)
#: Rated power of host and cards for one device, and fans. H100: 2 CPUs of 350 W, memory 300 W, 4 NVSwitch of 100 W, 8 NICs
#: of 25 W, disks and board 1100 W of the 4.6 kW that a DGX H100 has beside its GPUs, in a bath without fans. V100: 890 W
#: beside the GPUs of a DGX-1 less fans. TPU: two processors, memory and card for four chips. All from memory of the sheets.
HOSTS = MappingProxyType(
    {"h100": (340.0, 0.0), "a100": (300.0, 0.1), "v100": (110.0, 0.1), "tpu": (105.0, 0.05), "b200": (420.0, 0.0)}
)


def device(name: str) -> Device:
    """Return the device that a row names.

    Raises:
        UnknownNameError: Not in the catalog, no 16-bit peak there, or no host known for its family.
    """
    key = catalog.find("accelerators", name)
    sheet = {field: entry.value for field, entry in catalog.item("accelerators", key).items()}
    family = next((f for f in HOSTS if key.startswith(f)), None)
    peak = sheet.get("peak_bf16_dense_flops", sheet.get("peak_fp16_dense_flops"))
    if family is None or peak is None or "power_max_w" not in sheet or "memory_bandwidth_bytes_per_s" not in sheet:
        raise UnknownNameError(f"host, peak or power of {key!r} is not known; add it to the catalog and to HOSTS")
    idle_w, rated_w = CHIP_RANGE_W.get(key, (None, sheet["power_max_w"]))
    return Device(
        rated_w=rated_w,
        idle_w=idle_w,
        tensor_flops=peak,
        tensor_frac=sheet.get("achievable_matmul_bf16_frac", sheet.get("achievable_matmul_frac", 0.75)),
        fp32_flops=sheet.get("peak_fp32_flops"),
        bandwidth_bytes_per_s=sheet["memory_bandwidth_bytes_per_s"],
        host_rated_w=HOSTS[family][0],
        fan_frac=HOSTS[family][1],
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of training on one sample, forward and backward.

    Attributes:
        matrix_flop: Products and convolutions.
        memory_elements: Elements that elementwise passes read and write.
        samples_per_epoch: Of the data set.
        convolutional: Whether its products are convolutions.
        layers, hidden, seq_len: Of a transformer too large for one device, which is split; 0 otherwise.
        least_split: Devices that its weights fill at least.
    """

    matrix_flop: float
    memory_elements: float
    samples_per_epoch: float = 0.0
    convolutional: bool = False
    layers: int = 0
    hidden: int = 0
    seq_len: int = 0
    least_split: int = 1


def _transformer(params: float, layers: int, hidden: int, heads: int, seq_len: int, flop_per_param: float) -> Workload:
    """Return a transformer's work: products of the weights and of attention, and eager elementwise passes.

    About 70 passes over (sequence x hidden) a layer, forward and backward: dropout, residual, norm, activation of 4
    hidden. Attention that is not fused passes 18 times over (heads x sequence x sequence).
    """
    matrix = flop_per_param * params * seq_len + 12 * layers * hidden * seq_len**2
    passes = layers * (70 * seq_len * hidden + 18 * heads * seq_len**2)
    return Workload(matrix, passes)


def _eager_bert(seq_len: int, samples: float) -> Workload:
    work = _transformer(85e6, 12, 768, 12, seq_len, 6)
    return Workload(work.matrix_flop, work.memory_elements, samples)


def _split_lora(params: float, layers: int, hidden: int, seq_len: int) -> Workload:
    """Return fine-tuning with frozen weights: no gradient of the weights, so 4 flop for each; fused causal attention."""
    matrix = 4 * params * seq_len + 6 * layers * hidden * seq_len**2
    return Workload(
        matrix, 50.0 * layers * seq_len * hidden, layers=layers, hidden=hidden, seq_len=seq_len, least_split=4
    )


#: ResNet-50 at 224 pixels: 4.1 G multiply-accumulates forward, three times that with backward; 11.1 M outputs of
#: convolutions, each passed 15 times by norm, activation and sum in eager mode and 8 times where they are fused.
_RESNET_FLOP, _RESNET_OUTPUTS = 3 * 2 * 4.1e9, 11.1e6
#: By the rows' `model`. ImageNet 1 281 167 images. SQuAD 1.1 in windows of 384 tokens with stride 128: 88 524. MovieLens-1M:
#: 994 169 ratings with four negatives each; NeuMF passes some thousand elements a sample, so the host decides.
WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "resnet50 (imagenet)": Workload(_RESNET_FLOP, 15 * _RESNET_OUTPUTS, 1_281_167, convolutional=True),
        "bert_base_uncased (squad)": _eager_bert(384, 88_524),
        "ncf (movielens-1m)": Workload(1.2e5, 4e3, 5 * 994_169),
        "ResNet-50": Workload(_RESNET_FLOP, 8 * _RESNET_OUTPUTS, 1_281_167, convolutional=True),
        "Llama-2-70B-LoRA": _split_lora(69e9, 80, 8192, 8192),
    }
)


def workload(row: Mapping[str, str]) -> Workload:
    """Return the work of the job that a row names: a known one, or a transformer whose shape the row prints.

    Raises:
        UnknownNameError: Neither.
    """
    known = WORKLOADS.get(row.get("model", ""))
    if known is not None:
        return known
    shape = [number(r"^(\d+)$", row.get(name, "")) for name in ("params", "layers", "hidden", "seq")]
    params, layers, hidden, seq_len = (int(x or 0) for x in shape)
    if not all(shape):
        raise UnknownNameError(
            f"the work of {row.get('model')!r} for one sample is not known; print params, layers, hidden and seq of a "
            "transformer, or add it to energy_rows.WORKLOADS"
        )
    matrix = 6.0 * params * seq_len + 6.0 * layers * hidden * seq_len**2
    # 16 bytes of weights, gradients and optimiser a parameter, in 64 GB of a device; more is split by pipeline, unseen here.
    split = int(min(8, max(1, -(-16 * params // 64_000_000_000))))
    return Workload(
        matrix, 50.0 * layers * seq_len * hidden, layers=layers, hidden=hidden, seq_len=seq_len, least_split=split
    )


def number(pattern: str, text: str) -> float | None:
    """Return the number that the pattern's group finds in the text, or None."""
    match = re.search(pattern, text)
    return float(match[1].replace(",", "")) if match else None
