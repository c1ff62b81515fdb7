"""Published rows of serving: output tokens per second of a language model, by the inference model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import LabError
from ..models.inference import INFERENCE_PARAMETERS, InferenceParameters, predict_serving
from ..planning.architectures import transformer
from ..planning.hardware import cluster_for, precision_key

METRIC = "output_tokens_per_s_total"
#: Not printed in the rows: the mean prompt of a chat request, and answers whose lengths are spread like an exponential.
PROMPT_TOKENS = 200.0
OUTPUT_CV = 1.0


def predict_inference_row(
    row: Mapping[str, str], parameters: InferenceParameters = INFERENCE_PARAMETERS
) -> tuple[float | None, str]:
    """Return the predicted value of a row of serving in the row's own unit (tokens/s of the job), or None and why not.

    Args:
        row: One line of the schema of published rows; the batch and the answer's length are read from its notes.
        parameters: What the engine reaches.

    Valid when: the batch is full all the time. Off by: see `decode_step`.
    Source: shapes and devices from the catalogs.
    """
    if row.get("metric") != METRIC:
        return None, f"the inference model predicts {METRIC}, not {row.get('metric')!r}"
    notes = row.get("notes", "")
    batch, output = _number(r"avg batch ([\d.]+)", notes), _number(r"avg output len ([\d.]+)", notes)
    if batch is None or output is None or batch < 1 or output < 1:
        return None, "the notes do not print 'avg batch' and 'avg output len'"
    devices = _number(r"^(\d+)$", row.get("n_accel", ""))
    if not devices:
        return None, f"n_accel {row.get('n_accel')!r} is not a number of devices"
    try:
        precision = precision_key(row.get("precision") or "bf16")
        if precision not in ("bf16", "fp16"):
            return (
                None,
                f"precision {row.get('precision')!r}: the engine's parameters are fitted on 16-bit weights only",
            )
        model = transformer(row.get("model", ""), math.ceil(PROMPT_TOKENS + output))
        cluster = cluster_for(row.get("accelerator", ""), precision, row.get("source", ""))
    except LabError as error:
        return None, str(error)
    if devices > cluster.per_node or model.heads % devices:
        return (
            None,
            f"{devices:g} devices share the model; a divisor of its {model.heads} heads within one node is needed",
        )
    found = predict_serving(
        model, cluster, batch, PROMPT_TOKENS, output, tp_size=devices, output_cv=OUTPUT_CV, parameters=parameters
    )
    return float(found.output_tokens_per_s), ""


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return float(match[1]) if match else None
