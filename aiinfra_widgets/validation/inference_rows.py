"""Published rows of serving: output tokens per second of a language model, by the inference model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import UnknownNameError
from ..machine import catalog
from ..models.inference import INFERENCE_PARAMETERS, InferenceParameters, predict_serving
from ..models.transformer.architecture import Transformer
from ..models.transformer.cluster import Accelerator, Cluster

METRIC = "output_tokens_per_s_total"
#: Shapes that the rows name and do not print; from each model's published configuration file (config.json).
MODELS: Mapping[str, Transformer] = {
    "Qwen/Qwen3-8B": Transformer(
        layers=36,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_size=128,
        ffn=12288,
        gated=True,
        vocab=151936,
        seq_len=40960,
        tied=False,
    ),
    "Qwen/Qwen3-14B": Transformer(
        layers=40,
        hidden=5120,
        heads=40,
        kv_heads=8,
        head_size=128,
        ffn=17408,
        gated=True,
        vocab=151936,
        seq_len=40960,
        tied=False,
    ),
    "Qwen/Qwen3-32B": Transformer(
        layers=64,
        hidden=5120,
        heads=64,
        kv_heads=8,
        head_size=128,
        ffn=25600,
        gated=True,
        vocab=151936,
        seq_len=40960,
        tied=False,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": Transformer(
        layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, gated=True, vocab=128256, seq_len=131072, tied=False
    ),
    "meta-llama/Llama-3.1-70B-Instruct": Transformer(
        layers=80, hidden=8192, heads=64, kv_heads=8, ffn=28672, gated=True, vocab=128256, seq_len=131072, tied=False
    ),
}
#: Share of the peak that large matrix products reach; assumed here, only the largest batches feel it.
ACHIEVABLE_FRAC = 0.75
#: Not printed in the rows: the mean prompt of a chat request, and answers whose lengths are spread like an exponential.
PROMPT_TOKENS = 200.0
OUTPUT_CV = 1.0
#: Only models on several devices feel it.
HOP_LATENCY_S = 3e-6
DEVICES_PER_NODE = 8
LINKS = {"a100": "nvlink-3", "h100": "nvlink-4", "h200": "nvlink-4", "b200": "nvlink-5"}


def predict_inference_row(
    row: Mapping[str, str], parameters: InferenceParameters = INFERENCE_PARAMETERS
) -> tuple[float | None, str]:
    """Return the predicted value of a row of serving in the row's own unit (tokens/s of the job), or None and why not.

    Args:
        row: One line of the schema of published rows; the batch and the answer's length are read from its notes.
        parameters: What the engine reaches.

    Valid when: the batch is full all the time. Off by: see `decode_step`.
    Source: shapes from config.json of each model.
    """
    if row.get("metric") != METRIC:
        return None, f"the inference model predicts {METRIC}, not {row.get('metric')!r}"
    model = MODELS.get(row.get("model", ""))
    if model is None:
        return None, f"the shape of {row.get('model')!r} is not known to the inference model"
    notes = row.get("notes", "")
    batch, output = _number(r"avg batch ([\d.]+)", notes), _number(r"avg output len ([\d.]+)", notes)
    if batch is None or output is None or batch < 1 or output < 1:
        return None, "the notes do not print 'avg batch' and 'avg output len'"
    if row.get("precision") not in ("bfloat16", "bf16", "fp16"):
        return None, f"precision {row.get('precision')!r}: only 16-bit weights are fitted"
    devices = _number(r"^(\d+)$", row.get("n_accel", ""))
    if not devices or model.heads % devices or devices > DEVICES_PER_NODE:
        return None, f"n_accel {row.get('n_accel')!r}: one node whose devices divide {model.heads} heads is needed"
    try:
        cluster = _cluster(row.get("accelerator", ""))
    except (UnknownNameError, KeyError) as error:
        return None, f"accelerator {row.get('accelerator')!r}: {error}"
    found = predict_serving(
        model, cluster, batch, PROMPT_TOKENS, output, tp_size=devices, output_cv=OUTPUT_CV, parameters=parameters
    )
    return float(found.output_tokens_per_s), ""


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return float(match[1]) if match else None


def _cluster(name: str) -> Cluster:
    key = name.lower()
    sheet = catalog.accelerator(key)
    device = Accelerator(
        peak_flops=sheet["peak_fp16_dense_flops"].value,
        achievable_frac=ACHIEVABLE_FRAC,
        memory_bytes=sheet["memory_capacity_bytes"].value,
        memory_bandwidth_bytes_per_s=sheet["memory_bandwidth_bytes_per_s"].value,
    )
    link = LINKS.get(key.split("-")[0]) if "sxm" in key else "pcie-4-x16"
    bandwidth = catalog.item("links", link or "pcie-4-x16")["bandwidth_oneway_bytes_per_s"].value
    return Cluster(device, DEVICES_PER_NODE, bandwidth, HOP_LATENCY_S, bandwidth, HOP_LATENCY_S)
